# One list of commands for people and CI. `./dev RECIPE` makes the environment first.

set positional-arguments

python := quote(justfile_directory() / ".venv/bin/python")

_list:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list

# Format, lint, types, known holes and tests: what CI runs
check: format-check lint types audit-check test

# The test suite; arguments go to pytest
test *ARGS: _env
    {{ python }} -m pytest "$@"

# The codecs' contract and their differential fuzz, 50 times as long; says its seed. HYPOTHESIS_EXAMPLES=N: longer still
deep *ARGS: _env
    HYPOTHESIS_PROFILE=deep {{ python }} -m pytest tests/contract --timeout=7200 -o faulthandler_timeout=0 "$@"

# Three real gRPC servers behind one proxy; --once ends by itself
[no-cd]
[no-exit-message]
demo *ARGS: _env
    @{{ python }} -m stickyproxy demo "$@"

# The proxy itself: ./dev run --bind 127.0.0.1:8080 --backend 127.0.0.1:8001
[no-cd]
[no-exit-message]
run *ARGS: _env
    @{{ python }} -m stickyproxy run "$@"

# What a call costs beside the peers: --quick, --case NAME, --peer NAME, --help
[no-exit-message]
bench *ARGS: _env
    @{{ python }} -m bench "$@"

# What a bad connection, link or host does to us and the peers, as root: --quick, --scenario NAME, --peer NAME, selftest, --help
[no-exit-message]
chaos *ARGS: _env
    @{{ python }} -m chaos "$@"

# Against what is not ours: the protocols' suites, all or by name (h2spec, interop, negative, connect, fidelity, autobahn, attacks); kube (tests and figures), browser|deploy|image (tests), fidelity-peers|kube-proxy|replicas|spread (figures), tools (gets what they ask)
[no-exit-message]
conformance *TARGETS: _env
    @case "${1:-}" in \
        browser|deploy|image) export CONFORMANCE="$1"; shift; exec {{ python }} -m pytest tests/conformance "$@";; \
        tools) exec {{ python }} tests/support/toolbox.py;; \
        *) exec {{ python }} conformance/run.py "$@";; \
    esac

# Coverage-guided fuzzing, after pip install -e '.[security]': [TARGET|all] [SECONDS]; a case that it found becomes a file in tests/data/fuzz
[no-exit-message]
fuzz *ARGS: _env
    @{{ python }} conformance/fuzz/run.py "$@"

# Known holes in what we depend on, as pinned and as old as we allow; says when the database is out of reach
[no-exit-message]
audit: _env
    @{{ python }} conformance/audit.py

# The same within a check: a hole fails it, a database that is out of reach is one line
[private]
audit-check: _env
    @{{ python }} conformance/audit.py --check

# Ten minutes of everything that can go wrong at once: [MINUTES] [OUTPUT-FOLDER]
[no-exit-message]
soak *ARGS: _env
    @{{ python }} conformance/soak/run.py "$@"

# What is made from other files: definitions, the plain manifest
manifests: _env
    {{ python }} -m stickyproxy.config.schema.crds > deploy/crds/getambassador.io.yaml
    {{ python }} tests/support/manifests.py

# Sort imports, format all code
fmt: _env
    {{ python }} -m ruff check --select I --fix
    {{ python }} -m ruff format

# Is all code formatted?
format-check: _env
    {{ python }} -m ruff format --check

# Lint
lint: _env
    {{ python }} -m ruff check

# Types of source and tests
types: _env
    {{ python }} -m mypy

_env:
    @test -x {{ python }} || { echo 'just: there is no .venv yet: ./dev makes it' >&2; exit 2; }
