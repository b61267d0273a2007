//! The program from the outside.

mod cli;
mod common;
mod end_to_end;
mod finetune;
mod keys;
mod plain;
