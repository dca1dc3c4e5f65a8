//! Harness that boots SecVisor and its guests in emulators and judges them from outside.
