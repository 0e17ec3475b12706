# The appliance. `make help` lists the targets.
#
# Each room under appliance/ becomes one archive, $(BUILD)/lib/<room>.a; the
# programs and the unit tests link the archives their room may see, in the
# order of the arrows, so a forbidden call fails at the link too.

BUILD   ?= build
CC      ?= gcc
PREFIX  ?= /usr/local
SAN     ?=
WERROR  ?= $(if $(CI),-Werror)

PACKAGES := libmicrohttpd libpq libssl libcrypto libsodium libjwt jansson libevent_core \
            yajl libcares libcurl libpsl libconfuse libsystemd libutf8proc libidn2 gnutls gmime-3.0

PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
WARN    := -Wall -Wextra -Wpedantic -Wno-overlength-strings -Wshadow -Wconversion -Wsign-conversion -Wformat=2 \
           -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wimplicit-fallthrough
HARDEN  := $(if $(SAN),,-D_FORTIFY_SOURCE=3) -fstack-protector-strong -fPIE
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -Iappliance -I$(BUILD)/gen $(PKG_CFLAGS) $(WARN) $(WERROR) \
              $(HARDEN) -pthread -fno-omit-frame-pointer $(SAN) $(CFLAGS)
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now -pthread $(SAN) $(LDFLAGS)

# The arrows: what a room may include, itself first (ARCHITECTURE in README.md).
ROOMS := base dmtp net store web site relay home panel ctl
SEES_base  := base
SEES_dmtp  := dmtp base
SEES_net   := net dmtp base
SEES_store := store dmtp base
SEES_web   := web dmtp base
SEES_site  := site web net store dmtp base
SEES_relay := relay web net store dmtp base
SEES_home  := home web net store dmtp base
SEES_panel := panel web net store dmtp base
SEES_ctl   := ctl web net store dmtp base

# `make V=1` shows the commands.
Q := $(if $(V),,@)

room_src = $(wildcard appliance/$(1)/*.c)
room_obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(call room_src,$(1)))
libs_of  = $(foreach r,$(SEES_$(1)),$(BUILD)/lib/$(r).a)

PROGRAMS := $(BUILD)/tmtpd $(BUILD)/tmtpctl

.PHONY: all
all: $(PROGRAMS)

export ONCE

# --- rooms ---------------------------------------------------------------
define room_rule
$(BUILD)/lib/$(1).a: $(call room_obj,$(1)) $(if $(filter store,$(1)),$(BUILD)/obj/gen/migrations.o)
	@mkdir -p $$(@D)
	@rm -f $$@
	$(Q)$$(AR) rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  cc    $<")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# The migrations travel inside the programs, so that a binary knows exactly its schema.
MIGRATIONS := $(sort $(wildcard schema/[0-9]*.sql))
$(BUILD)/gen/migrations.c: $(MIGRATIONS) schema/embed.sh
	@mkdir -p $(@D)
	$(Q)sh schema/embed.sh $(MIGRATIONS) > $@.tmp
	$(Q)mv $@.tmp $@
$(BUILD)/obj/gen/migrations.o: $(BUILD)/gen/migrations.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

TMTPD_LIBS   := $(foreach r,site relay home panel web net store dmtp base,$(BUILD)/lib/$(r).a)
TMTPCTL_LIBS := $(foreach r,ctl web net store dmtp base,$(BUILD)/lib/$(r).a)

TMTPD_OBJS   := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard appliance/*.c))

# jemalloc: a request is freed on another thread than it began on, which is dear with the C
# library's arenas. The sanitizers bring an allocator of their own.
MALLOC_LIBS  := $(if $(SAN),,-ljemalloc)

$(BUILD)/tmtpd: $(TMTPD_OBJS) $(TMTPD_LIBS)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(TMTPD_OBJS) $(TMTPD_LIBS) $(PKG_LIBS) $(MALLOC_LIBS)

$(BUILD)/tmtpctl: $(TMTPCTL_LIBS)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ -Wl,--whole-archive $(BUILD)/lib/ctl.a -Wl,--no-whole-archive \
	    $(filter-out %/ctl.a,$(TMTPCTL_LIBS)) $(PKG_LIBS)

# --- unit tests: tests/unit/<room>/test_<file>.c --------------------------
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))

define unit_rule
$(BUILD)/unit/$(1)/%: tests/unit/$(1)/%.c $(wildcard tests/unit/*.h tests/unit/$(1)/*.h) $(call libs_of,$(1))
	@mkdir -p $$(@D)
	$(if $(V),,@echo "  test  $$@")
	$(Q)$$(CC) $$(ALL_CFLAGS) -Itests/unit -MMD -MP $$(ALL_LDFLAGS) -o $$@ $$< $(call libs_of,$(1)) $$(PKG_LIBS) -lcmocka
endef
$(foreach r,$(ROOMS),$(eval $(call unit_rule,$(r))))

.PHONY: unit unit-build
unit-build: $(UNIT_BIN)
unit: $(UNIT_BIN)
	@TMPDIR=$(TEST_TMP) sh tests/unit/run.sh $(UNIT_BIN)

# --- benchmarks: tests/bench/bench_<room>.c and bench_<room>_*.c ------------
define bench_rule
$(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_$(1).c tests/bench/bench_$(1)_*.c)): \
    $(BUILD)/bench/%: tests/bench/%.c $(call libs_of,$(1))
	@mkdir -p $$(@D)
	$(Q)$$(CC) $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$< $(call libs_of,$(1)) $$(PKG_LIBS)
endef
$(foreach r,$(ROOMS),$(if $(wildcard tests/bench/bench_$(r).c tests/bench/bench_$(r)_*.c),$(eval $(call bench_rule,$(r)))))

# The load tools, tests/bench/*.c but those above, and what they share.
LOAD_TOOLS  := $(filter-out bench_%,$(patsubst tests/bench/%.c,%,$(wildcard tests/bench/*.c)))
LOAD_SHARED := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/bench/common/*.c))
$(LOAD_SHARED): ALL_CFLAGS += -Itests/bench
$(LOAD_TOOLS:%=$(BUILD)/bench/%): $(BUILD)/bench/%: tests/bench/%.c $(LOAD_SHARED) $(call libs_of,net)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/bench -MMD -MP $(ALL_LDFLAGS) -o $@ $< $(LOAD_SHARED) $(call libs_of,net) $(PKG_LIBS)

include tests/fuzz/fuzz.mk

.PHONY: bench
bench: packages-bench
	@$(MAKE) --no-print-directory all bench-tools
	@BUILD=$(BUILD) node tests/bench/bench.mjs $(BENCH)

.PHONY: bench-tools
bench-tools: $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))

# --- everything else ---------------------------------------------------------
.PHONY: packages-build packages-run packages-test packages-bench packages-lint
packages-build packages-run packages-test packages-bench packages-lint:
	@sh deploy/packages.sh $(@:packages-%=%)

# The first run on a fresh machine has no pkg-config yet when this file is read, so what builds
# is a second make, after the packages are there.
.PHONY: run
run: packages-run
	@$(MAKE) --no-print-directory $(if $(V),,-s) -j$(shell nproc) all
	@BUILD=$(BUILD) bash deploy/demo/demo.sh

.PHONY: chaos chaos-short
chaos: packages-test
	@$(MAKE) --no-print-directory all
	@CLIENTS=$${CLIENTS:-16} CALM_S=$${CALM_S:-15} BUILD=$(abspath $(BUILD)) TMTPD=$(abspath $(BUILD))/tmtpd node tests/chaos/chaos.mjs
chaos-short: all
	@TMPDIR=$(TEST_TMP) SEED=$${SEED:-1} MESSAGES=$${MESSAGES:-80} BUILD=$(abspath $(BUILD)) TMTPD=$(abspath $(BUILD))/tmtpd node tests/chaos/chaos.mjs

TEST_TMP = $(shell sh tests/tmpdir.sh)

E2E := $(wildcard tests/e2e/*.test.mjs)
# Files at once: each waits more than it computes.
E2E_JOBS ?= 3

.PHONY: test
test: packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) all unit-build
	@$(MAKE) --no-print-directory test-all

.PHONY: test-all check e2e
test-all: all layers options install-check unit fuzz-replay conformance e2e chaos-short

check: layers options install-check unit fuzz-replay

e2e: all $(BUILD)/bench/dmtp-sink
	TMPDIR=$(TEST_TMP) BUILD=$(abspath $(BUILD)) TMTPD=$(abspath $(BUILD))/tmtpd node --test --test-concurrency=$(E2E_JOBS) $(E2E)

# HOST=… PORT=… CERTS=…: another server; tests/conformance/README.md has the rest. HOST counts only
# when it stands on the command line, since some shells export one.
FOREIGN := $(filter command,$(firstword $(origin HOST)))
.PHONY: conformance conformance-server
conformance: $(if $(FOREIGN),,all)
	@$(if $(FOREIGN),,env -u HOST) TMPDIR=$(TEST_TMP) BUILD=$(abspath $(BUILD)) node tests/conformance/run.mjs
conformance-server: all
	@BUILD=$(abspath $(BUILD)) node tests/conformance/serve.mjs

# Unit tests, fuzz seeds, the conformance suite and end-to-end tests under the sanitizers, in a build of their own. What
# they find ends a program with 99, which none of ours answers with.
ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
.PHONY: asan
asan: packages-test
	@ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:exitcode=99 \
	    UBSAN_OPTIONS=print_stacktrace=1 \
	    $(MAKE) --no-print-directory BUILD=$(BUILD)-asan SAN="$(ASAN_FLAGS)" OPT="-O1 -g" unit fuzz-replay conformance e2e

# Unit tests under the thread sanitizer: what several threads share.
.PHONY: tsan
tsan: packages-test
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-tsan SAN=-fsanitize=thread OPT="-O1 -g" unit

# The codec's line coverage by its unit tests and the fuzz seeds; VERBOSE=1 shows the lines that didn't run.
COVERAGE_LEAST ?= 95
.PHONY: coverage coverage-run
coverage: packages-test
	@rm -rf $(BUILD)-coverage/obj/appliance/dmtp
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-coverage SAN=--coverage OPT="-O0 -g" coverage-run
	@sh tests/coverage.sh $(BUILD)-coverage $(COVERAGE_LEAST)
coverage-run: $(filter $(BUILD)/unit/dmtp/%,$(UNIT_BIN)) fuzz-replay
	sh tests/unit/run.sh $(filter $(BUILD)/unit/dmtp/%,$(UNIT_BIN))

.PHONY: layers options
layers:
	@BUILD=$(BUILD) sh tests/layers.sh
options: $(BUILD)/tmtpd
	@TMTPD=$(abspath $(BUILD))/tmtpd sh tests/options.sh

C_FILES := $(wildcard appliance/*.[ch] appliance/*/*.[ch] tests/unit/*/*.[ch] tests/fuzz/*.[ch] tests/bench/*.[ch] tests/bench/common/*.[ch])
FORMAT  ?= clang-format-14
LINT_JOBS ?= $(shell nproc)

.PHONY: format format-check lint cppcheck tidy
format: packages-lint
	@$(FORMAT) -i $(C_FILES)
format-check: packages-lint
	@$(FORMAT) --dry-run -Werror $(C_FILES)
lint: packages-lint cppcheck tidy
cppcheck:
	cppcheck --quiet -j$(LINT_JOBS) --error-exitcode=1 --inline-suppr --std=c11 -D_GNU_SOURCE -Iappliance \
	    --suppress=missingIncludeSystem --enable=warning,performance,portability appliance
# File by file, as many at once as there are processors; the checks stand in .clang-tidy.
tidy:
	@printf '%s\n' $(wildcard appliance/*.c appliance/*/*.c) | \
	    TIDY_CFLAGS="-std=c11 -D_GNU_SOURCE -Iappliance $(PKG_CFLAGS) $(WARN)" \
	    xargs -P$(LINT_JOBS) -n1 sh tests/tidy.sh

# The manual of the configuration, from what the program says of it.
$(BUILD)/tmtp.conf.5: deploy/tmtp.conf.5.sh $(BUILD)/tmtpd
	$(Q)TMTPD=$(abspath $(BUILD))/tmtpd sh deploy/tmtp.conf.5.sh > $@.tmp
	$(Q)mv $@.tmp $@

# systemd looks into /usr/lib and /usr/local/lib; another PREFIX wants another UNITS.
UNITS ?= $(PREFIX)/lib
DOC   := $(PREFIX)/share/doc/tmtp
PAGES := README.md CHANGELOG.md CONTRIBUTING.md LICENSE deploy/README.md deploy/tmtp.conf.sample \
         schema/README.md schema/roles.sql \
         appliance/site/API.md appliance/home/API.md appliance/panel/API.md appliance/dmtp/PROTOCOL.md \
         tests/bench/README.md tests/chaos/README.md tests/conformance/README.md tests/vectors/README.md \
         tests/e2e/ADVERSARY.md tests/STATEMENTS.md

.PHONY: install
install: all $(BUILD)/tmtp.conf.5
	install -D -m 755 $(BUILD)/tmtpd $(DESTDIR)$(PREFIX)/sbin/tmtpd
	install -D -m 755 $(BUILD)/tmtpctl $(DESTDIR)$(PREFIX)/bin/tmtpctl
	install -D -m 644 deploy/tmtpctl.1 $(DESTDIR)$(PREFIX)/share/man/man1/tmtpctl.1
	install -D -m 644 $(BUILD)/tmtp.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5/tmtp.conf.5
	install -D -m 644 deploy/tmtpd.8 $(DESTDIR)$(PREFIX)/share/man/man8/tmtpd.8
	install -D -m 644 deploy/tmtpctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tmtpctl
	install -D -m 644 deploy/sysusers.d/tmtp.conf $(DESTDIR)$(UNITS)/sysusers.d/tmtp.conf
	install -D -m 644 deploy/tmpfiles.d/tmtp.conf $(DESTDIR)$(UNITS)/tmpfiles.d/tmtp.conf
	install -d $(DESTDIR)$(UNITS)/systemd/system
	sed 's|/usr/local/|$(PREFIX)/|g' deploy/tmtpd.service > $(DESTDIR)$(UNITS)/systemd/system/tmtpd.service
	chmod 644 $(DESTDIR)$(UNITS)/systemd/system/tmtpd.service
	install -D -m 644 deploy/tmtp.conf.sample $(DESTDIR)$(DOC)/tmtp.conf.sample
	install -D -m 644 deploy/nginx.conf.sample $(DESTDIR)$(DOC)/nginx.conf.sample
	for page in $(PAGES); do install -D -m 644 $$page $(DESTDIR)$(DOC)/$$page || exit 1; done

.PHONY: install-check
install-check: all
	@BUILD=$(BUILD) sh tests/install.sh

.PHONY: clean
clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-coverage $(BUILD)-tsan

.PHONY: help
help:
	@echo 'make             builds tmtpd and tmtpctl into $$(BUILD) ($(BUILD))'
	@echo 'make run         installs what is missing, builds, runs the demo of two appliances; ONCE=1 ends after it'
	@echo 'make test        installs what tests need and runs all of them'
	@echo 'make check       the fast tests: layers, options, what install installs, unit tests, fuzz seeds'
	@echo 'make conformance holds our own DMTP server against the specification; HOST=, PORT=, CERTS=: any other'
	@echo 'make conformance-server runs a home server for the tester of somebody else, until Ctrl-C'
	@echo 'make asan        unit tests, fuzz seeds and end-to-end tests under address, leak and undefined-behaviour sanitizers'
	@echo 'make chaos       kills, cuts, fills and jumps clocks while 100,000 messages go their way; chaos-short: each once'
	@echo 'make coverage    the line coverage of the codec; less than $(COVERAGE_LEAST) % fails. VERBOSE=1 shows what is missing'
	@echo 'make bench       measures: one JSON line a figure; BENCH="accept relay" only those'
	@echo 'make fuzz        fuzzes what strangers send; FUZZ_SECONDS, FUZZ_TARGETS'
	@echo 'make tsan        unit tests under the thread sanitizer'
	@echo 'make lint        clang-tidy and cppcheck'
	@echo 'make format      rewrites the C files with clang-format; format-check only looks'
	@echo 'make layers      fails on an include against the arrows'
	@echo 'make install     into $$(DESTDIR)$$(PREFIX) ($(PREFIX))'
	@echo 'make clean       removes what was built'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
