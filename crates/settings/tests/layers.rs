//! What wins, where it says it came from, and what a wrong setting is told.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;
use eastwest_settings::{Flags, Loaded, choice, settings};

choice! {
    enum Hook { Tc = "tc", Xdp = "xdp" }
}

settings! {
    struct Settings {
        /// Name.
        node_name: String = "host".to_owned(),
        /// Addresses.
        node_ip: Vec<IpAddr> = Vec::new(),
        /// A port.
        port: u16 = 80,
        /// Hook.
        pod_hook: Hook = Hook::Tc,
        /// Waits.
        wait: Duration = Duration::from_secs(5),
        /// Switch.
        loud: bool = false,
        /// Maybe.
        kubeconfig: Option<std::path::PathBuf> = None,
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Flags<Settings>,
}

fn load(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Result<Loaded<Settings>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.yaml");
    let mut argv = vec!["x".to_owned()];
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        argv.push(format!("--config={}", path.display()));
    }
    argv.extend(args.iter().map(|s| s.to_string()));
    let cli = Cli::try_parse_from(argv).map_err(|e| e.to_string())?;
    let env = env.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    cli.settings.load(env).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "nodeName: from-file\nport: 81\nnodeIp: [192.0.2.1, '2001:db8::1']\nwait: 250ms\n";
    let loaded = load(
        Some(file),
        &[("EASTWEST_PORT", "82"), ("EASTWEST_WAIT", "1m"), ("PATH", "/")],
        &["--wait", "2h", "--loud"],
    )
    .unwrap();
    let s = &loaded.settings;
    assert_eq!(
        (s.node_name.as_str(), s.port, s.pod_hook, s.wait, s.loud, s.node_ip.len()),
        ("from-file", 82, Hook::Tc, Duration::from_secs(7200), true, 2)
    );
    assert!(s.kubeconfig.is_none());
    let printed = loaded.print();
    for line in ["port: 82  # from env EASTWEST_PORT", "wait: 2h  # from flag", "podHook: tc  # from default"]
    {
        assert!(printed.contains(line), "{line} is not in\n{printed}");
    }
    assert!(
        printed.contains("nodeIp: [\"192.0.2.1\", \"2001:db8::1\"]  # from file:")
            || printed.contains("nodeIp: [192.0.2.1, \"2001:db8::1\"]  # from file:"),
        "{printed}"
    );
}

#[test]
fn printed_settings_can_be_given_back() {
    let first = load(None, &[], &["--node-ip=192.0.2.1,2001:db8::1", "--node-name", "a: b"]).unwrap();
    let second = load(Some(&first.print()), &[], &[]).unwrap();
    assert_eq!(first.settings.node_ip, second.settings.node_ip);
    assert_eq!(second.settings.node_name, "a: b");
}

#[test]
fn wrong_settings_are_told_what_is_right() {
    type Case<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);
    let cases: &[Case] = &[
        (
            "unknown key in file",
            Some("nodName: x"),
            &[],
            &[],
            &["nodName", "file:FILE", "did you mean nodeName?"],
        ),
        (
            "unknown variable",
            None,
            &[("EASTWEST_NODE_NAM", "x")],
            &[],
            &["EASTWEST_NODE_NAM", "did you mean EASTWEST_NODE_NAME?"],
        ),
        ("kebab in file", Some("node-name: x"), &[], &[], &["did you mean nodeName?"]),
        (
            "number",
            None,
            &[("EASTWEST_PORT", "many")],
            &[],
            &["\"many\"", "port", "env EASTWEST_PORT", "0 to 65535"],
        ),
        (
            "list item",
            None,
            &[],
            &["--node-ip", "192.0.2.1,x"],
            &["nodeIp", "flag", "\"x\" is not one", "an IP address"],
        ),
        ("choice", None, &[], &["--pod-hook", "ebpf"], &["podHook", "accepted: tc, xdp"]),
        ("map", Some("port: {a: 1}"), &[], &[], &["port", "0 to 65535"]),
        ("list for a scalar", Some("port: [1, 2]"), &[], &[], &["port", "0 to 65535"]),
        ("not a map", Some("- a"), &[], &[], &["FILE is not YAML"]),
        ("duration", None, &[], &["--wait", "5"], &["wait", "500ms"]),
    ];
    for (name, file, env, args, wanted) in cases {
        let error = load(*file, env, args).err().unwrap_or_else(|| panic!("{name}: accepted"));
        for part in *wanted {
            assert!(error.contains(part), "{name}: {part:?} is not in {error:?}");
        }
    }
}

#[test]
fn variables_of_kubernetes_services_are_no_settings() {
    let env = [
        ("EASTWEST_CONTROLLER_SERVICE_HOST", "10.96.0.1"),
        ("EASTWEST_CONTROLLER_SERVICE_PORT_API", "7443"),
        ("EASTWEST_CONTROLLER_PORT", "tcp://10.96.0.1:7443"),
        ("EASTWEST_CONTROLLER_PORT_7443_TCP_ADDR", "10.96.0.1"),
    ];
    load(None, &env, &[]).unwrap();
}

#[test]
fn an_empty_file_and_a_number_as_name_are_fine() {
    load(Some("# nothing\n"), &[], &[]).unwrap();
    assert_eq!(load(Some("nodeName: 12"), &[], &[]).unwrap().settings.node_name, "12");
    assert_eq!(load(None, &[("EASTWEST_NODE_NAME", "true")], &[]).unwrap().settings.node_name, "true");
}
