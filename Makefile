# What people run. `make demo` and `make test` work on a fresh machine that has Rust and a C compiler.

CARGO ?= cargo
OUT ?= runs/demo
# Mesa complains when it is not set, as in containers.
export XDG_RUNTIME_DIR ?= /tmp
NOVEL ?= data/pride_and_prejudice.txt
# Going on, if a demo was interrupted.
DEMO ?= --steps 380 --minutes 5 --resume

.PHONY: demo test test-full portable bindings gpu-code check bench setup help

help:
	@echo 'make demo        train a small GPT on a novel and let it write (into $(OUT))'
	@echo 'make test        checks and tests, on every adapter of this machine (a choice of the conformance suite: docs/guide/testing.md)'
	@echo 'make test-full   all of them, on a newer Mesa as well, and make portable'
	@echo 'make portable    does it compile for Windows, macOS, Android, browsers, and with the oldest Rust that is promised?'
	@echo 'make bindings    builds and tests the library for C and the package for Python (docs/guide/c.md, docs/guide/python.md)'
	@echo 'make gpu-code    what do the compilers of AMD, NVIDIA, Apple, Intel and Qualcomm make of the kernels? (docs/guide/kernels.md)'
	@echo 'make check       format and lints'
	@echo 'make bench       benchmarks'

setup:
	@scripts/setup.sh

demo: setup
	$(CARGO) run --release --locked -- train --data "$(NOVEL)" --out "$(OUT)" $(DEMO)
	$(CARGO) run --release --locked -- generate "$(OUT)/model" --prompt 'It is a truth' --temperature 0.5 --top-p 0.9

test:
	@.ci/run

test-full:
	@.ci/run --full

portable:
	@scripts/portable.sh

bindings:
	@scripts/bindings.sh

gpu-code:
	@scripts/gpu-code.sh

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

bench: setup
	$(CARGO) run --release --locked -- bench
	$(CARGO) bench --locked
