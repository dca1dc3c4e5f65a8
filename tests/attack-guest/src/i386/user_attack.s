# User mode's part in attacks and in the benchmark. Same section and conventions as user.s.

# ---- what ring 3 fires in attacks -------------------------------------------------------------
program u_int82
    int 0x82
    finish

program u_do_divide
    xor ecx, ecx
    div ecx

program u_do_page_fault
    mov eax, ds:[0x8000000]
    hlt

program u_do_breakpoint
    int3

program u_do_overflow
    mov eax, 0x7fffffff
    add eax, 1
    into

program u_do_undefined
    ud2

program u_do_protection
    hlt

program u_do_step
    push 0x102
    popfd
    nop
    nop
    finish

program u_do_syscall
    syscall
    finish

program u_do_sysenter
    faulting sysenter
    finish

# EDI = address, EAX = value: a store from ring 3.
program u_store
    mov [edi], eax
    finish

# EDI = address of a page-table entry, EAX = its new value; then the entry is used.
program u_store_int82
    mov [edi], eax
    int 0x82

# EDI, ESI = addresses: a copy from ring 3.
program u_copy
    mov eax, [edi]
    mov [esi], eax
    finish

program u_jump
    jmp edi

# ESI = address, EAX = value; copied to where ring 3 must not execute.
program u_mark
    mov [esi], eax
    finish
.globl u_mark_end
u_mark_end:

# EDI = the local APIC's ICR, mapped for ring 3; EAX = INIT, EDX = SIPI.
program u_start_others
    mov [edi], eax
    mov ecx, 2000000
1:  loop 1b
    mov [edi], edx
    mov ecx, 2000000
1:  loop 1b
    mov [edi], edx
    mov ecx, 200000000          # a busy host may let the other processor wait
1:  loop 1b
    finish

program u_just_vmmcall              # the kernel sets the registers
    vmmcall
    finish

program u_vmmcall
    mov eax, 0x5ec00001
    mov ebx, 1
    faulting vmmcall
    finish

# Far transfers that would switch tasks.
program u_jump_task
    ljmp [far_task]
    finish

# MOV SS holds the trap of a single step back until after the next instruction.
program u_shadow_jump_task
    mov eax, ss
    mov ss, eax
    ljmp [far_task]
    finish

program u_call_task
    lcall [far_task]
    finish

program u_call_task_gate
    lcall [far_gate]
    finish

program u_return_task
    pushfd
    or dword ptr [esp], 0x4000      # NT
    popfd
    iretd
    finish

# ---- the benchmark's loops: ESI = iterations --------------------------------------------------
program b_empty
1:  dec esi
    jnz 1b
    finish

program b_int
1:  int 0x83
    dec esi
    jnz 1b
    finish

program b_fault                     # the handler adds EDX to EIP
    mov ebx, 0x40000000
    mov edx, 2
1:  mov eax, [ebx]
    dec esi
    jnz 1b
    finish

program b_segment
    mov eax, 0x5b
1:  mov fs, eax
    dec esi
    jnz 1b
    finish

program b_interrupt
    nop
    sti
    nop
1:  jmp 1b

program u_do_bound
    xor eax, eax
    bound eax, [bounds]
    finish

# POP SS has the same shadow.
.macro popped name, instruction:vararg
program \name
    mov ecx, 0x7fffffff
    push 0x2b
    add ecx, 1                      # overflow, for INTO
    pop ss
    \instruction
    finish
.endm
popped u_pop_int, int 0x82
popped u_pop_breakpoint, int3
popped u_pop_overflow, into
