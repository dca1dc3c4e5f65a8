//! From GRUB to the first guest instruction.
#![cfg_attr(not(test), no_std)]
