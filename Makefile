# The two commands of the README: `make demo` and `make test`. Everything else is a step of these.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
STATIC := -- -C target-feature=+crt-static
LIBEXEC := $(CURDIR)/target/guest

.PHONY: help setup guest build demo test fuzz bench dashboard soak clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

setup: ## install what is missing: cargo-nextest, cargo-deny, the stock SDKs for the tests
	@scripts/setup.sh

guest: ## build what goes into sandboxes, static
	cargo rustc --locked --profile guest -p wardian-sandbox --bin wardian-guest $(STATIC)
	cargo rustc --locked --profile guest -p wardian-agent --bin wardian-agent $(STATIC)

build: guest ## build wardian, optimised
	cargo build --locked --release -p wardian

demo: build ## an agent fixes a failing test in a sandbox (SCRIPT=wrong-fix fails; LIVE=1 uses the real API)
	@python3 demo/demo.py

test: setup ## every check there is
	@scripts/test.sh

soak: guest ## what make test does twenty times, 2,000 times: kill -9 at random moments; and 100,000 simulated schedules (an hour)
	@scripts/soak.sh

fuzz: ## fuzz what comes from outside, a minute a target (needs a nightly toolchain)
	@scripts/fuzz.sh

bench: build ## measure the hot paths, beside their peers
	@scripts/bench.sh

dashboard: build ## ask a real Prometheus every question of the Grafana dashboard (unpacks Debian's package)
	@python3 deploy/grafana/check.py target/release

clean:
	cargo clean
