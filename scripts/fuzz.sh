#!/usr/bin/env bash
# Fuzzes one target of fuzz/, or with `all` each in turn: fuzz.sh [TARGET] [SECONDS for each]
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-all}
seconds=${2:-60}

skip() {
    echo "skipped: $1"
    exit 0
}

[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "the time is a number of seconds, not '$seconds'" >&2; exit 2; }
targets=()
for file in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$file" .rs)
    [[ $target == all || $target == "$name" ]] && targets+=("$name")
done
if [[ ${#targets[@]} -eq 0 ]]; then
    echo "no target '$target'; there are: $(basename -s .rs fuzz/fuzz_targets/*.rs | xargs)" >&2
    exit 2
fi

command -v cargo >/dev/null || skip "fuzzing needs Rust (https://rustup.rs)"
# Without rustup, `+nightly` means nothing to cargo, whatever is installed.
cargo +nightly --version >/dev/null 2>&1 || skip "fuzzing needs a nightly Rust: rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || skip "fuzzing needs cargo-fuzz: cargo install cargo-fuzz"

for name in "${targets[@]}"; do
    echo "$name, $seconds s"
    cargo +nightly fuzz run "$name" -- -max_total_time="$seconds"
done
