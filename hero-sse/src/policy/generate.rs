//! What becomes of the rows in [`settings`](super::settings). The columns are explained there.
//!
//! Methods belong to types of higher floors. For those the rows become macros without arguments
//! (`option_methods!()`), which the files of these types call inside an `impl` block.

/// Makes of the rows: the [`Policy`](super::Policy) of a stream, what somebody overrides in it, how the layers
/// resolve, the keys of the options, and all methods that set a value.
macro_rules! endpoint_settings {
    ($(
        $field:ident: $type:ty {
            meaning: $meaning:literal,
            default: $text:literal = $default:expr, $why:literal,
            $(subscription: $subscription_text:literal = $subscription:expr, $subscription_why:literal,)?
            $(plain: $plain_text:literal = $plain:expr, $plain_why:literal,)?
            $(posted: $posted_text:literal = $posted:expr, $posted_why:literal,)?
            $(check: $check:path,)?
            $(declaration: $narrow:path,)?
            $(post: $post:path,)?
            $(alias: [$($alias:literal),*],)?
            option: $key:literal $(as $method:ident)?,
            takes: ($argument:ident: $takes:ty) = $value:expr,
            $(attribute: $attribute:ident($declared:ident: $declares:ty) = $constant:expr,)?
        }
    )*) => {
        /// The settings of one stream, resolved.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct Policy {
            $(pub(crate) $field: $type,)*
        }

        /// The settings that one layer sets: the options, a declaration, or the options' table for an endpoint.
        /// `None` leaves a setting as the weaker layers have it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct PolicyOverrides {
            $(pub(crate) $field: Option<$type>,)*
        }

        impl PolicyOverrides {
            pub(crate) const NONE: Self = Self { $($field: None,)* };
        }

        impl Policy {
            pub(super) fn resolve_rows(layers: Layers<'_>, method: Method, kind: StreamKind) -> Self {
                let _ = (method, kind);
                let profile = layers.profile(method);
                Self {
                    $($field: {
                        let default: $type = $default;
                        $(let default: $type = match kind {
                            StreamKind::Private => default,
                            StreamKind::Subscription => $subscription,
                        };)?
                        $(let default: $type = match profile {
                            Profile::Native => default,
                            Profile::Plain => $plain,
                        };)?
                        $(let default: $type = match method {
                            Method::Get => default,
                            Method::Post => $posted,
                        };)?
                        let options = layers.options.$field.unwrap_or(default);
                        let declared = layers.declaration.$field.unwrap_or(options);
                        $(let declared = $narrow(options, declared);)?
                        let resolved = layers.table.$field.unwrap_or(declared);
                        $(let resolved = match method {
                            Method::Get => resolved,
                            Method::Post => $post(resolved),
                        };)?
                        resolved
                    },)*
                }
            }
        }

        /// The settings of endpoints, in the order of the rows.
        pub(crate) const ENDPOINT_SETTINGS: &[Setting<PolicyOverrides>] = &[$(
            Setting {
                key: $key,
                method: first_of!($(stringify!($method),)? ""),
                attribute: first_of!($(stringify!($attribute),)? ""),
                read: |overrides, value| {
                    let value = checked::<$type>(value, &[$($check)?])?;
                    overrides.$field = Some(value);
                    Ok(())
                },
                faults: |overrides| {
                    overrides.$field.map(|value| faults_of(&value, &[$($check)?])).unwrap_or_default()
                },
                #[cfg(test)]
                default: $text,
                #[cfg(test)]
                subscription: first_of!($(Some($subscription_text),)? None),
                #[cfg(test)]
                plain: first_of!($(Some($plain_text),)? None),
                #[cfg(test)]
                posted: first_of!($(Some($posted_text),)? None),
                #[cfg(test)]
                declares: first_of!($(stringify!($declares),)? ""),
            },
        )*];

        macro_rules! endpoint_option_methods {
            () => {$(
                $crate::policy::method_of! {
                    [$($method)?]
                    #[doc = $meaning]
                    $($(#[doc(alias = $alias)])*)?
                    #[doc = ""]
                    #[doc = concat!("Default: `", $text, "`, because ", $why, ".")]
                    $(#[doc = concat!(
                        "For a topic's subscription: `", $subscription_text, "`, because ", $subscription_why, "."
                    )])?
                    $(#[doc = concat!("Under `Profile = \"plain\"`: `", $plain_text, "`, because ", $plain_why, ".")])?
                    $(#[doc = concat!("For a `POST`: `", $posted_text, "`, because ", $posted_why, ".")])?
                    #[must_use]
                    (mut self, $argument: $takes) {
                        self.general.$field = Some($value);
                        self
                    }
                }
            )*};
        }

        macro_rules! endpoint_builder_methods {
            () => {$(
                $crate::policy::method_of! {
                    [$($attribute)?]
                    #[doc = $meaning]
                    $($(#[doc(alias = $alias)])*)?
                    #[doc = ""]
                    #[doc = concat!("Default: as in the options, else `", $text, "`, because ", $why, ".")]
                    $(#[doc = concat!(
                        "For a topic's subscription: `", $subscription_text, "`, because ", $subscription_why, "."
                    )])?
                    $(#[doc = concat!("Under `Profile = \"plain\"`: `", $plain_text, "`, because ", $plain_why, ".")])?
                    $(#[doc = concat!("For a `POST`: `", $posted_text, "`, because ", $posted_why, ".")])?
                    (mut self, $argument: $takes) {
                        self.declaration.overrides.$field = Some($value);
                        self
                    }
                }
            )*};
        }

        macro_rules! descriptor_methods {
            () => {$($(
                #[doc = concat!("The key `", stringify!($attribute), "` of `#[sse_endpoint]`.")]
                #[doc(hidden)]
                #[must_use]
                pub const fn $attribute(mut self, $declared: $declares) -> Self {
                    self.overrides.$field = Some($constant);
                    self
                }
            )?)*};
        }

        macro_rules! endpoint_option_table {
            () => {
                concat!(
                    "| key | default | meaning | reason for the default |\n|---|---|---|---|\n",
                    $(
                        "| `", $key, "` | `", $text, "`",
                        $("; for a topic's subscription `", $subscription_text, "`",)?
                        $("; under `plain` `", $plain_text, "`",)?
                        $("; for a `POST` `", $posted_text, "`",)?
                        " | ", $meaning, " | ", $why,
                        $("; for a subscription, ", $subscription_why,)?
                        $("; under `plain`, ", $plain_why,)?
                        $("; for a `POST`, ", $posted_why,)?
                        " |\n",
                    )*
                )
            };
        }

        macro_rules! attribute_table {
            () => {
                concat!(
                    "| key | default | meaning |\n|---|---|---|\n",
                    $($crate::policy::attribute_row!(
                        [$($attribute)?] "` | `", $text, "`",
                        $("; for a topic's subscription `", $subscription_text, "`",)?
                        $("; under `plain` `", $plain_text, "`",)?
                        $("; for a `POST` `", $posted_text, "`",)?
                        " | ", $meaning, " |\n"
                    ),)*
                )
            };
        }

        pub(crate) use {
            attribute_table, descriptor_methods, endpoint_builder_methods, endpoint_option_methods, endpoint_option_table,
        };
    };
}
pub(super) use endpoint_settings;

/// Makes of the rows: the settings of a server with their defaults, the keys of the options, and the methods.
macro_rules! server_settings {
    ($(
        $field:ident: $type:ty {
            meaning: $meaning:literal,
            default: $text:literal = $default:expr, $why:literal,
            $(check: $check:path,)?
            $(alias: [$($alias:literal),*],)?
            option: $key:literal $(as $method:ident)?,
            $(takes: ($argument:ident: $takes:ty) = $value:expr,)?
        }
    )*) => {
        /// The settings of a whole server.
        #[derive(Clone, Debug)]
        pub(crate) struct ServerSettings {
            $(pub(crate) $field: $type,)*
        }

        impl Default for ServerSettings {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// The settings of the server, in the order of the rows.
        pub(crate) const SERVER_SETTINGS: &[Setting<ServerSettings>] = &[$(
            Setting {
                key: $key,
                method: first_of!($(stringify!($method),)? ""),
                attribute: "",
                read: |settings, value| {
                    settings.$field = checked::<$type>(value, &[$($check)?])?;
                    Ok(())
                },
                faults: |settings| faults_of(&settings.$field, &[$($check)?]),
                #[cfg(test)]
                default: $text,
                #[cfg(test)]
                subscription: None,
                #[cfg(test)]
                plain: None,
                #[cfg(test)]
                posted: None,
                #[cfg(test)]
                declares: "",
            },
        )*];

        macro_rules! server_option_methods {
            () => {$(
                $crate::policy::method_of! {
                    [$($method)?]
                    #[doc = $meaning]
                    $($(#[doc(alias = $alias)])*)?
                    #[doc = ""]
                    #[doc = concat!("Default: `", $text, "`, because ", $why, ".")]
                    #[must_use]
                    $((mut self, $argument: $takes) {
                        self.server.$field = $value;
                        self
                    })?
                }
            )*};
        }

        macro_rules! server_option_table {
            () => {
                concat!(
                    "| key | default | meaning | reason for the default |\n|---|---|---|---|\n",
                    $("| `", $key, "` | `", $text, "` | ", $meaning, " | ", $why, " |\n",)*
                )
            };
        }

        pub(crate) use {server_option_methods, server_option_table};
    };
}
pub(super) use server_settings;

/// Makes a method of that name, if the row names one.
macro_rules! method_of {
    ([] $($rest:tt)*) => {};
    ([$name:ident] $(#[$($attribute:tt)*])* ($($arguments:tt)*) $body:block) => {
        $(#[$($attribute)*])*
        pub fn $name($($arguments)*) -> Self $body
    };
}
pub(crate) use method_of;

/// Makes a row of documentation, if the row of the setting names a key of the attribute.
macro_rules! attribute_row {
    ([] $($rest:tt)*) => {
        ""
    };
    ([$attribute:ident] $($text:literal),*) => {
        concat!("| `", stringify!($attribute) $(, $text)*)
    };
}
pub(crate) use attribute_row;

/// A column that a row may leave out, else the last.
macro_rules! first_of {
    ($first:expr $(, $other:expr)*) => {
        $first
    };
}
pub(super) use first_of;
