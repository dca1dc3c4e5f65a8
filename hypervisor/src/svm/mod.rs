//! AMD SVM: the structures and instructions that the processor defines.

pub mod cpu;
pub mod exit;
pub mod vmcb;
pub mod world_switch;
