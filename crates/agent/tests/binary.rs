//! The binary's face: settings, exit codes.

use std::process::{Command, Output};

fn agent(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eastwest-agent"));
    command.args(args);
    for (key, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("EASTWEST_")) {
        command.env_remove(key);
    }
    command.envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn print_config_shows_every_value_with_its_source_and_can_be_given_back() {
    let env = [("EASTWEST_NODE_NAME", "node-7"), ("EASTWEST_POD_HOOK", "xdp")];
    let out = agent(&["--print-config", "--pod-hook", "tc", "--node-ip=192.0.2.1,2001:db8::1"], &env);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let printed = text(&out.stdout);
    for line in [
        "nodeName: node-7  # from env EASTWEST_NODE_NAME",
        "podHook: tc  # from flag",
        "healthzListen: \"[::]:10256\"  # from default",
        "zone: cluster.local  # from default",
        "nodeLocalDns: \"169.254.20.10\"  # from default",
    ] {
        assert!(
            printed.contains(line) || printed.contains(&line.replace("\"169.254.20.10\"", "169.254.20.10")),
            "{line} is not in\n{printed}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, &printed).unwrap();
    let again = agent(&["--print-config", "--config", file.to_str().unwrap()], &[]);
    let values =
        |s: &str| s.lines().map(|l| l.split("  # ").next().unwrap_or(l).to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&text(&again.stdout)), values(&printed), "{}", text(&again.stderr));
}

#[test]
fn what_is_wrong_with_the_command_line_is_told() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);
    let cases: &[Case<'_>] = &[
        (&["--pod-hook", "ebpf"], &[], 2, "accepted: tc, xdp"),
        (&[], &[("EASTWEST_ZOME", "x")], 2, "did you mean EASTWEST_ZONE?"),
        (&["--config", "/nonexistent.yaml"], &[], 2, "/nonexistent.yaml"),
        (&["--no-such-flag"], &[], 2, "--no-such-flag"),
        (&["--log-level", "loud=very=much"], &[], 1, "accepted: error, warn, info"),
        (&["--node-name", "Not_A_Name"], &[], 1, "--node-name"),
    ];
    for (args, env, code, wanted) in cases {
        let out = agent(args, env);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{args:?} {env:?}: {error}");
        assert!(error.contains(wanted), "{args:?} {env:?}: {wanted:?} is not in {error}");
    }
    let version = agent(&["--version"], &[]);
    assert_eq!(text(&version.stdout).trim(), concat!("eastwest-agent ", env!("CARGO_PKG_VERSION")));
}
