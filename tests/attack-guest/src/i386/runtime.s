# What compiled code calls by name: on hosted targets a C library would have it.
.text
.macro runtime name
    .balign 16, 0xcc
    .globl \name
\name:
    push esi
    push edi
    mov edi, [esp + 12]
    mov esi, [esp + 16]
    mov ecx, [esp + 20]
.endm
.macro end_runtime
    pop edi
    pop esi
    ret
.endm

runtime memcpy
    mov eax, edi
    rep movsb
    end_runtime

runtime memmove
    mov eax, edi
    cmp edi, esi
    jbe 1f
    std
    lea edi, [edi + ecx - 1]
    lea esi, [esi + ecx - 1]
1:  rep movsb
    cld
    end_runtime

runtime memset
    mov edx, edi
    mov eax, esi
    rep stosb
    mov eax, edx
    end_runtime

.globl bcmp
.set bcmp, memcmp

runtime memcmp
    xor eax, eax
    repe cmpsb
    je 1f
    sbb eax, eax
    or eax, 1
1:  end_runtime
