use std::borrow::Cow;

/// One declared setting. Made by [`settings!`](crate::settings).
#[derive(Clone, Copy)]
pub struct Key {
    /// Name of the struct's field, `snake_case`.
    pub field: &'static str,
    /// The doc comment: help text of the flag.
    pub doc: &'static str,
    /// The default as text.
    pub default: fn() -> String,
    /// What is accepted, in words.
    pub accepted: fn() -> Cow<'static, str>,
    /// Whether it takes several values.
    pub list: bool,
    /// Whether the flag stands for `true` without a value.
    pub switch: bool,
    /// Whether `accepted` lists all values.
    pub choice: bool,
}

impl Key {
    /// The name in YAML.
    pub fn camel(&self) -> String {
        let mut out = String::with_capacity(self.field.len());
        let mut upper = false;
        for c in self.field.chars() {
            match c {
                '_' => upper = true,
                c if upper => {
                    out.push(c.to_ascii_uppercase());
                    upper = false;
                }
                c => out.push(c),
            }
        }
        out
    }

    /// The name of the flag, without dashes in front.
    pub fn kebab(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The name in the environment.
    pub fn env(&self) -> String {
        format!("EASTWEST_{}", self.field.to_ascii_uppercase())
    }
}

/// A set of settings. Implemented by [`settings!`](crate::settings).
pub trait Settings: Sized + Send + Sync + 'static {
    /// All keys, in the order of declaration.
    fn keys() -> &'static [Key];
    /// Builds the struct; `value` gives the text of a key by its index in [`keys`](Self::keys). The error is the index
    /// of the key whose text is not accepted, with the reason.
    fn build(value: &mut dyn FnMut(usize) -> String) -> Result<Self, (usize, String)>;
}

/// Declares a struct of settings: `name: Type = default,`. Doc comments become the help texts.
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $field:ident : $ty:ty = $default:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
        }

        impl $crate::Settings for $name {
            fn keys() -> &'static [$crate::Key] {
                &[ $( $crate::Key {
                    field: stringify!($field),
                    doc: concat!($($doc),*),
                    default: || <$ty as $crate::Setting>::show(&$default),
                    accepted: <$ty as $crate::Setting>::accepted,
                    list: <$ty as $crate::Setting>::LIST,
                    switch: <$ty as $crate::Setting>::SWITCH,
                    choice: <$ty as $crate::Setting>::CHOICE,
                }, )* ]
            }
            fn build(
                value: &mut dyn FnMut(usize) -> ::std::string::String,
            ) -> ::std::result::Result<Self, (usize, ::std::string::String)> {
                let mut next = 0..;
                $(
                    let index = next.next().unwrap_or_default();
                    let $field = <$ty as $crate::Setting>::parse(&value(index)).map_err(|e| (index, e))?;
                )*
                ::std::result::Result::Ok(Self { $($field,)* })
            }
        }
    };
}

/// Declares an enum whose values are words: `pub enum Mode { Tc = "tc", Xdp = "xdp" }`.
#[macro_export]
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[$vmeta])* $variant, )+ }

        impl $crate::Setting for $name {
            const CHOICE: bool = true;
            fn parse(text: &str) -> ::std::result::Result<Self, ::std::string::String> {
                match text {
                    $( $word => ::std::result::Result::Ok(Self::$variant), )+
                    _ => ::std::result::Result::Err(::std::string::String::new()),
                }
            }
            fn show(&self) -> ::std::string::String {
                match self { $( Self::$variant => $word.to_owned(), )+ }
            }
            fn accepted() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Owned([$($word),+].join(", "))
            }
        }
    };
}
