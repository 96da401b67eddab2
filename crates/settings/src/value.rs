use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// A type that a setting may have: it is read from, and shown as, one line of text.
pub trait Setting: Sized {
    /// Takes several values (a sequence in YAML, commas elsewhere).
    const LIST: bool = false;
    /// The flag may stand alone for `true`.
    const SWITCH: bool = false;
    /// [`accepted`](Self::accepted) lists all values: the help shows them.
    const CHOICE: bool = false;
    /// Reads the value. The error may add a reason to [`accepted`](Self::accepted), or be empty.
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
    /// What is accepted, as it stands after "accepted: ".
    fn accepted() -> Cow<'static, str>;
}

macro_rules! by_from_str {
    ($($ty:ty => $accepted:literal;)*) => {$(
        impl Setting for $ty {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| String::new())
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn accepted() -> Cow<'static, str> {
                $accepted.into()
            }
        }
    )*};
}

by_from_str! {
    u16 => "a number from 0 to 65535";
    u32 => "a number from 0 to 4294967295";
    u64 => "a number from 0 to 18446744073709551615";
    usize => "a number from 0 to 18446744073709551615";
    IpAddr => "an IP address such as 192.0.2.1 or 2001:db8::1";
    IpNet => "a range such as 10.96.0.0/16 or fd00:10:96::/112";
    SocketAddr => "ADDRESS:PORT such as 127.0.0.1:7443 or [::]:7443";
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
    fn accepted() -> Cow<'static, str> {
        "text".into()
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(String::new()) } else { Ok(text.into()) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
    fn accepted() -> Cow<'static, str> {
        "a path".into()
    }
}

impl Setting for bool {
    const SWITCH: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn accepted() -> Cow<'static, str> {
        "true or false".into()
    }
}

impl Setting for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let number: u64 = number.parse().map_err(|_| String::new())?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        millis.map(Duration::from_millis).ok_or_else(String::new)
    }
    fn show(&self) -> String {
        let ms = self.as_millis();
        match ms {
            _ if !ms.is_multiple_of(1_000) => format!("{ms}ms"),
            _ if !ms.is_multiple_of(60_000) || ms == 0 => format!("{}s", ms / 1_000),
            _ if !ms.is_multiple_of(3_600_000) => format!("{}m", ms / 60_000),
            _ => format!("{}h", ms / 3_600_000),
        }
    }
    fn accepted() -> Cow<'static, str> {
        "a duration such as 500ms, 5s, 10m or 1h".into()
    }
}

/// Empty text: absent.
impl<T: Setting> Setting for Option<T> {
    const LIST: bool = T::LIST;
    const SWITCH: bool = T::SWITCH;
    const CHOICE: bool = T::CHOICE;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
    fn accepted() -> Cow<'static, str> {
        T::accepted()
    }
}

impl<T: Setting> Setting for Vec<T> {
    const LIST: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(|t| {
                T::parse(t).map_err(|e| {
                    if e.is_empty() { format!("{t:?} is not one") } else { format!("{t:?}: {e}") }
                })
            })
            .collect()
    }
    fn show(&self) -> String {
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }
    fn accepted() -> Cow<'static, str> {
        format!("a comma list, each {}", T::accepted()).into()
    }
}
