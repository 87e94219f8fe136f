//! `#[derive(SseEvent)]`: makes a struct, or each variant of an enum, an event.

mod bounds;
mod check;
mod expand;
mod mirror;
mod model;
mod parse;

use proc_macro2::TokenStream;

use crate::errors::Errors;

pub(crate) use parse::key_table;

pub(crate) fn event(item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let input = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let declaration = parse::declaration(input, &mut errors);
    match check::event(&declaration, &mut errors) {
        Ok(event) => expand::event(&event),
        Err(rejected) => expand::rejected(&rejected),
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::key::Target;
    use crate::key::tests::assert_every_key_counts;

    fn expanded(item: TokenStream) -> String {
        prettyplease::unparse(&syn::parse2(event(item)).unwrap())
    }

    #[test]
    fn a_struct() {
        let expanded = expanded(quote! {
            pub struct UsageReading { #[sse(id)] seq: u64, used: u64 }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn a_generic_struct_with_a_name() {
        let expanded = expanded(quote! {
            #[sse(event = "note", crate = sse)]
            struct Note<'a, T: Copy = u8>(&'a str, #[sse(id)] T) where T: Display;
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn an_enum() {
        let expanded = expanded(quote! {
            #[serde(tag = "kind")]
            pub enum Build {
                /// It waits.
                Queued { #[sse(id)] job: u64, #[serde(rename = "by")] owner: String },
                #[sse(event = "line")]
                #[serde(rename_all = "camelCase", rename = "x")]
                Log(LogLine, #[sse(id)] u64),
                #[sse(last)]
                Finished = 3,
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn texts_keys_and_reconnection_times() {
        let expanded = expanded(quote! {
            #[sse(rename_all = "snake_case")]
            enum Notice {
                #[sse(data = "text", retry = "30s")]
                BuildLog { #[sse(id)] number: u64, #[sse(key)] build: u64, text: String },
                Maintenance { #[sse(retry)] back_in: Duration, why: Reason },
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn names_and_none() {
        let expanded = expanded(quote! {
            #[sse(unnamed)]
            enum Chunk {
                Text(String),
                Error(String),
                #[sse(event = "error")]
                Failed(String),
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn events_without_data() {
        let expanded = expanded(quote! {
            #[sse(data = "none")]
            enum Note {
                Working(#[sse(comment)] &'static str),
                #[sse(event = "ping", retry = "30s")]
                Ping { #[sse(comment)] #[sse(id)] n: u64 },
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn a_generic_enum() {
        let expanded = expanded(quote! {
            #[serde(rename_all_fields = "camelCase")]
            enum Tree<'a, T: Clone, const N: usize> where T: Send {
                Leaf(&'a T, [u8; N]),
                Node { of: Vec<Self> },
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn an_enum_with_bounds_of_its_own() {
        let expanded = expanded(quote! {
            #[serde(bound = "T: ToString")]
            enum Text<T, U> {
                A(#[serde(serialize_with = "text", bound(serialize = "U: Display"))] T, U),
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn mistakes_come_together_and_leave_a_stub() {
        let expanded = expanded(quote! {
            #[sse(event = "build")]
            enum Build<T> where T: Copy {
                #[sse(lasst)]
                Open,
                Log { #[sse(id)] a: T, #[sse(id)] b: T },
            }
        });
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn every_key_counts() {
        let with = |target| move |key: &&crate::key::Key| key.targets.contains(&target);
        for target in [Target::Struct, Target::Enum, Target::Variant, Target::Field] {
            let keys: Vec<_> = parse::KEYS.iter().filter(with(target)).collect();
            assert!(!keys.is_empty());
            assert_every_key_counts(keys, |example| match target {
                Target::Struct | Target::Function => event(quote!(
                    #[sse(#example)]
                    struct A {
                        a: u8,
                    }
                )),
                Target::Enum => event(quote!(
                    #[sse(#example)]
                    enum A {
                        BeeSee(u8),
                    }
                )),
                Target::Variant => event(quote!(
                    enum A {
                        #[sse(#example)]
                        B(u8),
                    }
                )),
                Target::Field => event(quote!(
                    enum A {
                        B(#[sse(#example)] u8),
                    }
                )),
            });
        }
    }
}
