# One command for each habit. `make help` lists them; each says what it installs and does.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PATH := $(shell scripts/path)
CARGO ?= cargo
# Tests and the demo make network namespaces and load kernel programs: they run as root, by sudo where make does not.
AS_ROOT := $(CURDIR)/scripts/as-root
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The demo and the tests share one build of the dev profile; RELEASE=1 runs the demo on the release binaries.
BIN_DIR := $(TARGET_DIR)/$(if $(RELEASE),release,debug)
BINARIES := -p eastwest -p eastwest-agent -p eastwest-controller
WEB_SOURCES := $(shell find web/src web/public -type f 2>/dev/null) web/index.html web/package-lock.json \
  web/svelte.config.js web/vite.config.ts web/tsconfig.json

say = @printf '\n== %s\n' '$(1)'

.PHONY: help
help: ## this list
	@echo 'make TARGET:'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: build
build: setup-build bpf web ## release binaries in target/release, kernel programs and dashboard embedded
	$(call say,release binaries: $(TARGET_DIR)/release/{eastwest,eastwest-agent,eastwest-controller})
	$(CARGO) build --release --locked $(BINARIES)

.PHONY: setup
setup: setup-build setup-lab setup-peers setup-browser ## install what is missing (apt-get; tools in ~/.cache/eastwest)

.PHONY: setup-build setup-lab setup-peers setup-browser setup-lint
setup-build setup-lab setup-peers setup-browser setup-lint: setup-%:
	@scripts/setup $*

.PHONY: bpf
bpf: setup-build ## the kernel programs: target/bpf/eastwest.bpf.o
	$(call say,kernel programs by cargo xtask bpf)
	$(CARGO) xtask bpf

.PHONY: web
web: setup-build web/dist/index.html ## the dashboard: web/dist, which the controller embeds

web/dist/index.html: $(WEB_SOURCES) | web/node_modules/.package-lock.json
	$(call say,dashboard: vite build to web/dist)
	cd web && npm run --silent build

web/node_modules/.package-lock.json: web/package-lock.json web/package.json
	$(call say,npm packages of the dashboard, as web/package-lock.json names them)
	cd web && npm ci --no-audit --no-fund && touch node_modules/.package-lock.json

# What the demo and the lab tests run.
.PHONY: binaries
binaries: bpf web
	$(call say,binaries in $(BIN_DIR))
	$(CARGO) build --locked $(if $(RELEASE),--release) $(BINARIES)

.PHONY: demo
demo: setup-build setup-lab binaries ## a cluster in network namespaces, step by step (ARGS=--keep leaves it up, RELEASE=1 with release binaries)
	$(call say,demo: three nodes in network namespaces of their own; nothing of this machine is touched)
	$(AS_ROOT) env EASTWEST_BIN_DIR=$(BIN_DIR) demo/run $(ARGS)

.PHONY: test
test: setup test-rust test-web test-browser test-conformance ## all tests: Rust (with privileged ones), dashboard, browser, conformance on a real Kubernetes

.PHONY: test-rust
test-rust: setup-build setup-lab setup-peers binaries ## unit, property and lab tests of all crates
	$(call say,Rust tests; those that need network namespaces and kernel programs run as root)
	EASTWEST_BIN_DIR=$(BIN_DIR) CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)' \
	  $(CARGO) test --locked --workspace --no-fail-fast

.PHONY: test-web
test-web: setup-build web ## types and unit tests of the dashboard
	$(call say,dashboard: types generated from api-spec are current; type check; unit tests)
	cd web && npm run --silent check:types && npm run --silent check && npm run --silent test

.PHONY: test-browser
test-browser: setup binaries ## the dashboard in headless Chromium against a real cluster in the lab
	$(call say,dashboard in headless Chromium against a controller and agents in the lab)
	cd web && $(AS_ROOT) env EASTWEST_BIN_DIR=$(BIN_DIR) npm run --silent test:browser

.PHONY: test-old-kernel
test-old-kernel: binaries ## the binaries on Debian's 6.1 kernel in an emulated machine: verifier, clsact, virtio_net, a lab
	@scripts/setup old-kernel
	$(call say,Debian 6.1 in QEMU by software emulation; the kernel is kept in ~/.cache/eastwest/kernels)
	EASTWEST_BIN_DIR=$(BIN_DIR) CARGO_TARGET_DIR=$(TARGET_DIR) tests/old-kernel/run $(ARGS)

.PHONY: test-dns-diff
test-dns-diff: setup-build setup-lab setup-peers binaries ## 100,000 questions to eastwest's DNS and to CoreDNS, built by Go: each difference is listed
	$(call say,eastwest and CoreDNS of one state; what differs must stand in tests/dns/differences.yaml)
	EASTWEST_BIN_DIR=$(BIN_DIR) EASTWEST_DNS_QUERIES=100000 CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)' \
	  $(CARGO) test --locked --workspace --test dns_differential -- --nocapture

.PHONY: test-conformance
test-conformance: binaries ## Kubernetes' sig-network conformance specs with eastwest in place of kube-proxy and CoreDNS
	@scripts/setup k8s
	scripts/image $(BIN_DIR) localhost/eastwest:test
	$(call say,a Kubernetes in network namespaces$(,) eastwest by its own manifests; its programs are built once$(,) in ~/.cache/eastwest/peers)
	$(AS_ROOT) env K8S_NAME=conformance CARGO_TARGET_DIR=$(TARGET_DIR) \
	  tests/k8s/with --proxy eastwest --image $(CURDIR)/target/image/eastwest.tar -- tests/k8s/conformance $(ARGS)

.PHONY: test-conformance-control
test-conformance-control: ## Kubernetes' sig-network conformance specs with kube-proxy and CoreDNS: what the harness itself can pass
	@scripts/setup k8s
	$(call say,a Kubernetes in network namespaces$(,) with kube-proxy and CoreDNS; its programs are built once$(,) in ~/.cache/eastwest/peers)
	$(AS_ROOT) env K8S_NAME=control CARGO_TARGET_DIR=$(TARGET_DIR) tests/k8s/with tests/k8s/conformance $(ARGS)

.PHONY: test-kind
test-kind: binaries ## the same specs on kind, pods hooked by generic XDP and then by tc; your Docker and kind, or its own
	@scripts/setup k8s
	scripts/image $(BIN_DIR) localhost/eastwest:test
	$(call say,kind with eastwest in place of kube-proxy and CoreDNS; without a Docker here one runs in namespaces of its own)
	$(AS_ROOT) env CARGO_TARGET_DIR=$(TARGET_DIR) tests/kind/run $(CURDIR)/target/image/eastwest.tar $(ARGS)

.PHONY: kind-image
kind-image: ## the file system of a kind node, for machines that reach no registry: Debian, Kubernetes, etcd (test-kind calls it)
	@scripts/setup k8s
	$(AS_ROOT) tests/kind/node-image

.PHONY: test-differential
test-differential: binaries ## the table of scenarios on the real kube-proxy, nftables and iptables mode: each difference has its reason
	@scripts/setup k8s
	scripts/image $(BIN_DIR) localhost/eastwest:test
	$(call say,Kubernetes in network namespaces with kube-proxy; what differs must stand in tests/scenarios/services.yaml)
	K8S_IMAGE=$(CURDIR)/target/image/eastwest.tar CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)' \
	  $(CARGO) test --locked -p eastwest-scenarios --test kube_proxy -- --test-threads=1 --nocapture

.PHONY: test-migrate
test-migrate: binaries ## a node of a real Kubernetes changes over from kube-proxy and CoreDNS, and back, under load: no request fails
	@scripts/setup k8s
	scripts/image $(BIN_DIR) localhost/eastwest:test
	$(call say,a Kubernetes in network namespaces changes over to eastwest and back)
	EASTWEST_BIN_DIR=$(BIN_DIR) K8S_IMAGE=$(CURDIR)/target/image/eastwest.tar CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)' \
	  $(CARGO) test --locked -p eastwest-scenarios --test migrate -- --nocapture

.PHONY: test-restart
test-restart: binaries ## nodes of a real Kubernetes start again: one, and all at once with the controller last
	@scripts/setup k8s
	scripts/image $(BIN_DIR) localhost/eastwest:test
	$(call say,a Kubernetes in network namespaces whose nodes are killed and started again)
	K8S_IMAGE=$(CURDIR)/target/image/eastwest.tar CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)' \
	  $(CARGO) test --locked -p eastwest-scenarios --test restart -- --nocapture

.PHONY: image
image: build ## a container image of the three binaries, from scratch: target/image/eastwest.tar
	$(call say,container image: OCI archive$(,) loadable by docker too)
	scripts/image $(TARGET_DIR)/release

.PHONY: manifests
manifests: ## deploy/kustomize from the Helm chart (ARGS=--check compares); builds helm once
	@scripts/setup k8s
	deploy/render $(ARGS)

.PHONY: bench
bench: setup-lab build ## measures, on release binaries: target/bench/*.json and a table (ARGS=--quick to try it)
	$(call say,benchmarks; each ratio is taken within one run)
	$(CARGO) build --release --locked -p eastwest-bench
	$(CARGO) build --release --locked -p eastwest-dataplane --example bench_programs --example bench_nic --example bench_apply
	$(AS_ROOT) env EASTWEST_BIN_DIR=$(TARGET_DIR)/release $(TARGET_DIR)/release/eastwest-bench --out $(TARGET_DIR)/bench $(ARGS)

.PHONY: bench-size
bench-size: setup-lab build ## 10,000 and 44,000 Services in a real Kubernetes, beside kube-proxy and CoreDNS (ARGS=--quick to try it)
	@scripts/setup k8s
	scripts/image $(TARGET_DIR)/release localhost/eastwest:test
	$(CARGO) build --release --locked -p eastwest-bench
	$(call say,a Kubernetes in network namespaces; eastwest on one node$(,) kube-proxy and CoreDNS on the other)
	$(AS_ROOT) $(TARGET_DIR)/release/eastwest-bench --out $(TARGET_DIR)/bench size $(CURDIR)/target/image/eastwest.tar $(ARGS)

.PHONY: lint
lint: setup-build setup-lint bpf web ## rustfmt, clippy with warnings denied, cargo-deny, svelte-check, shell syntax
	$(call say,rustfmt and clippy)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(call say,cargo-deny: licences$(,) bans and sources of dependencies)
	$(CARGO) deny --locked check bans licenses sources
	$(call say,dashboard and scripts)
	cd web && npm run --silent check && npm run --silent check:format
	@for s in scripts/peers/* $$(find scripts -maxdepth 1 -type f) .ci/run tests/old-kernel/{run,kernel,initramfs,init,guest/*} \
	  tests/k8s/{cluster,conformance,with,lib/*,images/make,node/init,node/runc,peers/build} \
	  tests/kind/{cluster,engine,node-image,run,runc,node/kind/bin/*}; do bash -n "$$s"; done

.PHONY: fmt
fmt: web/node_modules/.package-lock.json ## format everything
	$(CARGO) fmt --all
	cd web && npm run --silent fmt

.PHONY: spec
spec: setup-build ## api-spec/openapi.json from the code, and the dashboard's types from that
	$(call say,api-spec/openapi.json and web/src/lib/api/schema.d.ts)
	$(CARGO) run --locked -q -p eastwest-controller -- openapi > $(TARGET_DIR)/openapi.json.new
	mv $(TARGET_DIR)/openapi.json.new api-spec/openapi.json
	$(MAKE) --no-print-directory web/node_modules/.package-lock.json
	cd web && npm run --silent types

.PHONY: clean
clean: ## remove what builds made
	$(CARGO) clean
	rm -rf web/dist web/node_modules web/test-results xdp/programs/target

# The host's target triple as cargo spells it in environment variables.
HOST = $(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
, := ,
