# `make help` lists the targets; CI runs those of .ci/run.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export GOFLAGS := -buildvcs=false
# Where tests and the demo find the OCI runtime, the CNI plugins and our own binaries.
export PINFOLD_RUNC ?= $(CURDIR)/build/tools/runc
export PINFOLD_CNI_BIN ?= $(CURDIR)/build/tools/cni
export PINFOLD_BIN ?= $(CURDIR)/build/bin

BINARIES := pinfoldd pinder pinfold
VERSION := $(shell hack/version.sh)
# Each of the three commands has a variable main.version.
LDFLAGS := -s -w -X main.version=$(VERSION)
# The time limit of one test package. Two packages run at a time.
TEST_FLAGS := -count=1 -p 2 -timeout 30m

# The packages with unit tests: all but the end-to-end ones.
UNIT := ./cmd/... ./hack/... ./internal/... ./packaging/... ./pin/...

.PHONY: help tools tools-crun build generate man packages install demo run debug bench bench-peers bench-docs lint vuln unit unit-race cover e2e test test-race test-crun test-vm test-vm-short test-vm-install test-vm-crun test-kubelet test-guides crash soak fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

tools: ## install or build what is missing on this machine (Debian packages, runc, CNI plugins)
	@hack/tools.sh run

tools-crun: ## build crun from Debian's source package into build/tools
	@hack/tools.sh crun

build: ## build the static binaries into build/bin
	@mkdir -p build/bin
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o build/bin/ $(addprefix ./cmd/,$(BINARIES))
	@echo "build: $(BINARIES) $(VERSION) in build/bin"

generate: man ## write the Go code of the API from api/**/*.proto (builds the generators first), and the manual pages
	@hack/tools.sh generate
	@cd api && ../build/tools/buf lint && ../build/tools/buf generate

man: ## write the manual pages in docs/man from the help texts of the commands
	@go test -count=1 -run TestManPage ./cmd/... -args -update

packages: ## build deb, rpm and tar.gz for amd64 and arm64, SBOMs and checksums into build/packages
	@hack/tools.sh packages
	@packaging/build.sh

install: build ## copy binaries, unit, manuals and completions below DESTDIR and PREFIX (/usr/local); see packaging/install.sh
	@packaging/install.sh

demo: tools build ## show a pod in its own user namespace that survives the daemon (root)
	@hack/demo.sh

run: must-be-root tools build ## run a daemon of this checkout in scratch directories until Ctrl-C, and say how to reach it (root)
	@hack/run.sh

debug: must-be-root tools ## the same under delve, for `dlv connect` or an editor; make debug PORT=4000 (root)
	@hack/tools.sh debug
	@hack/run.sh debug $(or $(PORT),4000)

lint: ## check format, vet (amd64 and arm64) and lint
	@hack/tools.sh lint
	@hack/lint.sh

vuln: ## look for known vulnerabilities in the code that the binaries call (OPTIONAL=1: skip if the database cannot be reached)
	@hack/tools.sh vuln
	@hack/vuln.sh $(if $(OPTIONAL),-optional)

unit: ## run the unit tests that need no root, in less than a minute
	@go test -short $(UNIT)

unit-race: ## the same with the race detector
	@CGO_ENABLED=1 go test -short -race $(UNIT)

cover: ## show the test coverage of each package, and write build/cover/unit.html
	@hack/cover.sh $(UNIT)

e2e: must-be-root tools build ## run the end-to-end tests, or those that match: make e2e RUN=TestScenarios/life (root)
	@go test $(TEST_FLAGS) -v -run '$(or $(RUN),.)' ./e2e

test: must-be-root tools build ## run all unit and end-to-end tests (root)
	@go test $(TEST_FLAGS) ./...

test-race: must-be-root tools build ## the same with the race detector (slow)
	@CGO_ENABLED=1 go test -race $(TEST_FLAGS) ./...

test-crun: must-be-root tools tools-crun ## run the end-to-end tests with crun instead of runc (root)
	@PINFOLD_OCI_RUNTIME=crun go test $(TEST_FLAGS) ./e2e

test-vm: must-be-root tools ## run the end-to-end tests in a VM with pure cgroup v2 and an older kernel: cgroupfs, then systemd (root)
	@hack/vm/test.sh

# The tests that depend most on cgroups and kernel. With systemd: those that depend on its ownership of the cgroups.
test-vm-short: must-be-root tools ## run a part of these: life cycles, resources, statistics, OOM kills, and a life cycle with crun (root)
	@hack/tools.sh crun || echo "vm: crun could not be built"
	@PINFOLD_VM_TIMEOUT=900 hack/vm/test.sh 'minimal=^Test(Scenarios|Resources|Stats|Metrics|OOM)' \
		'systemd=^Test(Resources(Of|Are)|StatsShow|StatsCountWhat|OOM|PluginsRun|TheServiceUnderSystemd$$)|^TestScenarios$$/^(life-of-a-pod|the-daemon-dies)$$' \
		'crun=^TestScenarios$$/^(life-of-a-pod|kinds-of-pods)$$'

test-vm-install: must-be-root tools ## install, upgrade, downgrade, remove and purge deb and rpm in the VM, while a pod runs (root)
	@PINFOLD_VM_TIMEOUT=900 hack/vm/test.sh install

# crun refuses a mixture of cgroup v1 and v2; the VM has v2 only.
test-vm-crun: must-be-root tools tools-crun ## run the end-to-end tests with crun in the VM (root)
	@PINFOLD_OCI_RUNTIME=crun hack/vm/test.sh minimal systemd

test-kubelet: must-be-root tools ## build a kubelet and run it with Pinfold in the VM (root)
	@hack/tools.sh kubelet
	@hack/vm/test.sh kubelet

test-guides: must-be-root tools ## carry out the guides of docs/guides, in VMs; builds a control plane of Kubernetes (root)
	@hack/tools.sh crictl
	@hack/tools.sh kubernetes
	@hack/vm/test.sh guides

crash: must-be-root tools ## run the whole crash matrix: each step, each phase, each process that can be killed (root)
	@PINFOLD_CRASH=all go test -count=1 -v -timeout 60m -run TestCrashMatrix ./e2e

soak: must-be-root tools ## run random operations and kills: make soak SEED=1 MINUTES=10 (root)
	@PINFOLD_SOAK_SEED=$(or $(SEED),1) PINFOLD_SOAK_MINUTES=$(or $(MINUTES),10) go test -count=1 -v -timeout 0 -run TestSoak ./e2e

fuzz: ## fuzz each parser of foreign input for SECONDS=60; new inputs are kept in testdata/fuzz
	@hack/fuzz.sh $(or $(SECONDS),60)

bench: must-be-root tools build ## measure pods, execs, lists and memory beside the floor, and beside the peers if they are built: make bench BENCH='-rounds 1 -pods 5' (root)
	@go build -o build/bench/bench ./hack/bench
	@build/bench/bench $(BENCH)

bench-peers: ## build containerd into build/tools/containerd, for make bench
	@hack/tools.sh peers

bench-docs: ## write docs/benchmarks.md and its pictures from the last results of make bench
	@go run ./hack/bench -docs

clean: ## remove everything that was built
	@rm -rf build

.PHONY: must-be-root
must-be-root:
	@[[ $$(id -u) == 0 ]] || { echo "make $(MAKECMDGOALS) must run as root: it makes namespaces, mounts, bridges and cgroups of its own (try: sudo make $(MAKECMDGOALS), or make unit)" >&2; exit 1; }
