//! Names of the standard prelude, and of macros and attributes, may be other items of the user.
#![allow(dead_code, non_camel_case_types, unused_macros, unused_imports, non_snake_case)]

struct Result;
struct Option;
struct String;
struct Vec;
struct Box;
enum Some {}
enum None {}
enum Ok {}
enum Err {}
trait Send {}
trait Sync {}
trait Sized {}
trait Drop {}
trait Clone {}
trait Fn {}
trait FnOnce {}
trait From {}
trait Into {}
trait TryFrom {}
trait Iterator {}
trait ToString {}
trait Future {}
trait Display {}
struct u32;
macro_rules! concat {
    () => {
        compile_error!("the user's")
    };
}
macro_rules! file {
    () => {
        compile_error!("the user's")
    };
}
macro_rules! line {
    () => {
        compile_error!("the user's")
    };
}
macro_rules! include_str {
    () => {
        compile_error!("the user's")
    };
}
macro_rules! assert {
    () => {
        compile_error!("the user's")
    };
}

::core::include!("../anywhere.rs");
