# SPDX-License-Identifier: Apache-2.0
# The usual names for what Meson and the scripts in tools/ do. `make help` lists them.

PYTHON := /usr/bin/python3
LEDGER := build/check/ledger.jsonl
PREFIX := /usr/local
REPORT := yes

.PHONY: all
all: ## build into build/: thaw, libthaw.so, libthaw-preload.so
	@tools/variant.sh build gcc
	@ln -sf src/cli/thaw src/libthaw.so src/vmm/libthaw-preload.so build/

.PHONY: demo
demo: ## install what is missing, then snapshot a Linux guest and restore it page by page
	@tools/setup.sh build demo
	@$(MAKE) --no-print-directory all
	@$(PYTHON) tools/demo.py --thaw build/thaw --preload build/libthaw-preload.so --out build/demo

.PHONY: check
check: ## install what is missing, then all suites, sanitizers, lint and coverage
	@tools/setup.sh build demo check lint
	@status=0; tools/check.sh $(LEDGER) || status=1; \
	if [ $(REPORT) = yes ]; then \
		$(PYTHON) tools/summary.py $(LEDGER) --allowed tests/allowed-skips.txt --line || status=1; \
	fi; exit $$status

.PHONY: asan tsan
asan tsan: ## the suites in clang's sanitizers (asan also runs the fuzz targets for a moment)
	@tools/variant.sh build $@
	@tools/variant.sh test $@

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS (default 60)
	@tools/variant.sh build asan
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-60} tools/variant.sh test asan fuzz

.PHONY: stress
stress: all ## is guest memory linearizable? for STRESS_SECONDS (default 3600) and THAW_KILLS (1000), from SEED on
	@STRESS_SECONDS=$${STRESS_SECONDS:-3600} THAW_KILLS=$${THAW_KILLS:-1000} \
		meson test -C build --no-rebuild --logbase stress --suite stress --timeout-multiplier 0 --verbose

.PHONY: cov
cov: ## which lines the unit and trace tests run, with a floor for core and source
	@tools/variant.sh build cov
	@tools/variant.sh test cov
	@tools/coverage.sh

.PHONY: lint
lint: all ## layout, static analysis, layers, purity of core, sizes, spelling, documents
	@tools/variant.sh test gcc static

.PHONY: model
model: all ## model-check the page states against the kernel's order of events
	@tools/variant.sh test gcc model

.PHONY: mutations
mutations: ## take each fix of docs/scenarios.md out, and see its test fail (some minutes)
	@tests/mutation/run.py

.PHONY: memcheck
memcheck: all ## the unit and trace tests in valgrind
	@tools/setup.sh memcheck
	@meson test -C build --no-rebuild --logbase memcheck --suite unit --suite trace --timeout-multiplier 10 \
		--wrapper 'valgrind --quiet --leak-check=full --error-exitcode=42'

.PHONY: bench
bench: ## measure the page faults of Thaw, and what it installs ahead of them, and print the tables
	@tools/setup.sh build bench
	@$(MAKE) --no-print-directory all
	@$(PYTHON) tools/bench.py
	@$(MAKE) --no-print-directory bench-ahead
	@$(MAKE) --no-print-directory bench-image
	@$(MAKE) --no-print-directory bench-restore

.PHONY: bench-ahead
bench-ahead: all ## the second half of it: NAMES="bulk scattered", OUT=FOLDER, ARGS="--rounds 9"
	@$(PYTHON) tools/bench_ahead.py --out $(or $(OUT),build/bench) $(NAMES) -- $(ARGS)

.PHONY: bench-image
bench-image: all ## images of real guests: size, speed, frames: NAMES="frames guests throughput", OUT=FOLDER, ARGS="--rounds 9"
	@$(PYTHON) tools/bench_image.py --out $(or $(OUT),build/bench) $(ARGS) $(NAMES)

.PHONY: bench-image-serve
bench-image-serve: all ## a guest served from an image, against its memory file: ARGS="--memory FILE --rounds 5"
	@$(PYTHON) tools/bench_image_serve.py $(ARGS)

.PHONY: bench-sandbox
bench-sandbox: all ## a paused guest goes on, with its working set and without: ARGS="--rounds 9"
	@$(PYTHON) tools/bench_sandbox.py $(ARGS)

.PHONY: bench-restore
bench-restore: all ## from a template to its guest's first answer, against the VMM's own restore: ARGS="--vms 1,4 --rounds 9"
	@$(PYTHON) tools/bench_restore.py -- $(ARGS)

.PHONY: format
format: ## lay out the C files as .clang-format says
	@find src include tests examples -name '*.[ch]' -exec clang-format -i {} +

.PHONY: install
install: all ## install under PREFIX (default /usr/local), below DESTDIR
	@meson configure build --prefix $(PREFIX)
	@meson install -C build

.PHONY: dist
dist: all ## a source archive of the last commit, tested by building it
	@meson dist -C build

.PHONY: clean
clean: ## remove all build folders
	@rm -rf build build-asan build-tsan build-cov

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z -]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | \
		while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done
