#!/usr/bin/env bash
# Checks that everything compiles on platforms that this machine is not: the library without features and with those for files and
# tokenizers, and the command, for Windows, macOS and Android; the library for browsers; and all of it with the oldest Rust that
# Cargo.toml promises. Nothing is linked. What could not be checked is said, and with --strict it is a failure. Usage:
#   portable.sh [--strict] [windows] [macos] [android] [browser] [rust]      (default: all)
# Rust's standard library for a target comes from rustup; where rustup cannot fetch it, it is built from its source
# (rustup's component rust-src, or Debian's package).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "portable: $*" >&2; }

strict=false
parts=()
for argument in "$@"; do
  case $argument in
    --strict) strict=true ;;
    windows | macos | android | browser | rust) parts+=("$argument") ;;
    -h | --help) sed -n '2,8s/^# //p' "$0"; exit 0 ;;
    *) say "unknown argument $argument (known: --strict windows macos android browser rust)"; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(windows macos android browser rust)

# In a folder of its own: checks for other targets share nothing with what is built for this one.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/portable")
export CARGO_TARGET_DIR
unchecked=()

mkdir -p "$CARGO_TARGET_DIR"
. scripts/rust-std.sh

check() {
  local target=$1
  shift
  say "$target: cargo check $*"
  local log=$CARGO_TARGET_DIR/check.log
  cargo check --quiet --locked "${std[@]}" --target "$target" "$@" 2>"$log" || { cat "$log" >&2; return 1; }
  if grep -q '^warning' "$log"; then
    cat "$log" >&2
    say "$target: no warning is let pass"
    return 1
  fi
}

# The C parts of dependencies are not for checking, so that no compiler for the target is needed: libraries of nothing stand for them.
without_c() {
  local name=${1//-/_} nothing=$CARGO_TARGET_DIR/no-c
  cat >"$nothing" <<'NOTHING'
#!/bin/sh
for argument; do
  case $argument in
    -out:*) : >"${argument#-out:}" ;;
    *.a | *.lib) : >"$argument" ;;
  esac
done
NOTHING
  chmod +x "$nothing"
  export "CC_$name=true" "CXX_$name=true" "AR_$name=$nothing"
}

platform() {
  if ! find_std "$1"; then
    unchecked+=("$1: there is no standard library for it")
    return
  fi
  without_c "$1"
  check "$1" --no-default-features --lib
  check "$1" --no-default-features --features files,tokenizers --lib
  check "$1" --lib --bins
}

browser() {
  local target=wasm32-unknown-unknown
  if ! find_std "$target"; then
    unchecked+=("$target: there is no standard library for it")
    return
  fi
  check "$target" --no-default-features --features webgpu --lib
  check "$target" --no-default-features --features webgpu,tokenizers --lib
}

# The oldest Rust that is promised, by its own compiler. Where that cannot be had: whether a dependency asks for a newer one.
oldest_rust() {
  local version
  version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  if rustup_did run "$version" rustc --version || rustup_did toolchain install "$version" --profile minimal; then
    say "Rust $version: cargo check"
    cargo "+$version" check --quiet --locked --lib --bins
    cargo "+$version" check --quiet --locked --no-default-features --lib
  else
    local newest
    newest=$(cargo metadata --locked --format-version 1 | grep -o '"rust_version":"[^"]*"' | cut -d'"' -f4 | sort -V | tail -n 1)
    if [ "$(printf '%s\n' "$version" "$newest" | sort -V | tail -n 1)" != "$version" ]; then
      say "a dependency asks for Rust $newest, Cargo.toml promises $version: cargo metadata says which"
      exit 1
    fi
    unchecked+=("Rust $version: rustup cannot install it (no dependency asks for more than $newest)")
  fi
}

for part in "${parts[@]}"; do
  case $part in
    windows) platform x86_64-pc-windows-msvc ;;
    macos) platform aarch64-apple-darwin ;;
    android) platform aarch64-linux-android ;;
    browser) browser ;;
    rust) oldest_rust ;;
  esac
done

if [ ${#unchecked[@]} -gt 0 ]; then
  for what in "${unchecked[@]}"; do
    say "NOT CHECKED: $what"
  done
  if $strict || [ ${#unchecked[@]} -eq ${#parts[@]} ]; then
    exit 1
  fi
  say "passed, but for what was not checked"
else
  say "passed"
fi
