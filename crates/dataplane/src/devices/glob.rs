//! Names against patterns with `*` and `?`, as device settings have them.

/// True when any pattern matches the whole name.
pub(super) fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', pattern)), rest) => {
            matches(pattern, name) || rest.is_some_and(|(_, name)| matches_star(pattern, name))
        }
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((want, pattern)), Some((have, name))) if want == have => matches(pattern, name),
        _ => false,
    }
}

fn matches_star(pattern: &[u8], name: &[u8]) -> bool {
    (0..=name.len()).any(|skipped| matches(pattern, &name[skipped..]))
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns() {
        let cases = [
            ("veth*", "veth1a2b", true),
            ("veth*", "veth", true),
            ("veth*", "eth0", false),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("e*0", "eth0", true),
            ("e*0", "eth01", false),
            ("*", "", true),
            ("", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(super::any(&[pattern.to_owned()], name), expected, "{pattern} {name}");
        }
    }
}
