# Two commands for a newcomer: `make serve` and `make test`.  Everything else is for those who change the code.

PYTHON ?= python3
PYTHON312 ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One thread of arithmetic per test process: two processes share two cores.
PYTEST := OMP_NUM_THREADS=1 PYTHONPATH=tests/guard $(BIN)/python -m pytest
WORKERS ?= 2

ROUNDS ?= 1000

.PHONY: help serve test check format test-long crash faults tamper interop interop-model interop-log bench bench-log starter clean
.DEFAULT_GOAL := help

help:
	@echo "make serve      install into .venv, make a development state in ./var, serve on http://127.0.0.1:8600"
	@echo "make test       install into .venv, run the whole suite in WORKERS=2 processes"
	@echo "make check      lint, types, import contracts, docs"
	@echo "make test-long  the long lanes: many crash rounds, large fuzz"
	@echo "make crash      kill the log's writer ROUNDS=1000 times under load on each store, and the server"
	@echo "make faults     fail every call to the disk in every way, and cut the power at every call"
	@echo "make tamper     change every bit and every row of a log, and print what was found"
	@echo "make interop    let strangers' tools check us: model_signing, aics-tlog, aics-witness, pymerkle"
	@echo "make bench      drive a running appliance with a real trace and print one table"
	@echo "make bench-log  what the log costs on each store, beside what the disk takes"
	@echo "make starter    train the starter model again from its seed"

serve: $(VENV)/.serve
	@exec $(BIN)/cloister serve --development

test: $(VENV)/.test
	$(PYTEST) -q -n $(WORKERS)

test-long: $(VENV)/.test
	$(PYTEST) -m slow --timeout=7200

crash: $(VENV)/.test
	CLOISTER_CRASH_ROUNDS=$(ROUNDS) $(PYTEST) -q -s --timeout=7200 tests/audit/test_crash.py tests/audit/postgres/test_server_deaths.py

faults: $(VENV)/.test
	$(PYTEST) -q -s -m slow --timeout=7200 tests/audit/test_faulty_disk.py

tamper: $(VENV)/.test
	@rm -f .tamper.jsonl
	CLOISTER_TAMPER_TABLE=.tamper.jsonl $(PYTEST) -q -n $(WORKERS) -m slow --timeout=7200 \
		tests/audit/test_tamper_every_bit.py tests/audit/test_tamper_every_row.py \
		tests/audit/evidence/test_tamper_every_bit.py tests/audit/evidence/test_tamper_structure.py
	@$(BIN)/python tests/support/tamper_table.py .tamper.jsonl

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/docs

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Programs that nobody here wrote, each in an environment of its own.
interop: interop-model interop-log

interop-model: $(VENV)/.test
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet model-signing==1.1.1 pyOpenSSL==26.4.0
	CLOISTER_MODEL_SIGNING=$(CURDIR)/.venv-interop/bin/model_signing $(PYTEST) tests/offline_bundle/test_interop_model_signing.py

# aics-tlog needs Python 3.12 or newer: name one by PYTHON312 where `python3.12` is not it.
interop-log: $(VENV)/.test
	$(PYTHON312) -m venv .venv-interop-log
	.venv-interop-log/bin/python -m pip install --quiet aics-tlog==0.2.1 aics-witness==0.1.0 pymerkle==7.0.0
	CLOISTER_TLOG_PYTHON=$(CURDIR)/.venv-interop-log/bin/python $(PYTEST) tests/audit/test_interop_tlog.py \
		tests/audit/evidence/test_interop_pack.py tests/audit/test_interop_witness.py

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.bench_serving

# The server lies on the disk of the temporary folder: name another one by TMPDIR.
bench-log: $(VENV)/.test
	$(BIN)/python tests/support/with_postgres.py $${TMPDIR:-/tmp} \
		$(BIN)/python -m benchmarks.bench_log --folder $${TMPDIR:-/tmp}

starter: $(VENV)/.test
	$(BIN)/python models/starter/train.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Cloister needs Python 3.11 or newer; '$(PYTHON)' is not (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[client]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.serve
	$(PIP) install --quiet --constraint constraints.txt --editable '.[client,test,check]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
