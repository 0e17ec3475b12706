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
            libcares libcurl libpsl libconfuse libsystemd libutf8proc libidn2 gnutls

PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

OPT     ?= -O2 -g
CFLAGS  ?= $(OPT)
WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wformat=2 \
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

room_src = $(wildcard appliance/$(1)/*.c)
room_obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(call room_src,$(1)))
libs_of  = $(foreach r,$(SEES_$(1)),$(BUILD)/lib/$(r).a)

PROGRAMS := $(BUILD)/tmtpd $(BUILD)/tmtpctl

.PHONY: all
all: $(PROGRAMS)

# --- rooms ---------------------------------------------------------------
define room_rule
$(BUILD)/lib/$(1).a: $(call room_obj,$(1)) $(if $(filter store,$(1)),$(BUILD)/obj/gen/migrations.o)
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(AR) rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# The migrations travel inside the programs, so that a binary knows exactly its schema.
MIGRATIONS := $(sort $(wildcard schema/[0-9]*.sql))
$(BUILD)/gen/migrations.c: $(MIGRATIONS) schema/embed.sh
	@mkdir -p $(@D)
	sh schema/embed.sh $(MIGRATIONS) > $@.tmp
	mv $@.tmp $@
$(BUILD)/obj/gen/migrations.o: $(BUILD)/gen/migrations.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

TMTPD_LIBS   := $(foreach r,site relay home panel web net store dmtp base,$(BUILD)/lib/$(r).a)
TMTPCTL_LIBS := $(foreach r,ctl web net store dmtp base,$(BUILD)/lib/$(r).a)

TMTPD_OBJS   := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard appliance/*.c))

$(BUILD)/tmtpd: $(TMTPD_OBJS) $(TMTPD_LIBS)
	$(CC) $(ALL_LDFLAGS) -o $@ $(TMTPD_OBJS) $(TMTPD_LIBS) $(PKG_LIBS)

$(BUILD)/tmtpctl: $(TMTPCTL_LIBS)
	$(CC) $(ALL_LDFLAGS) -o $@ -Wl,--whole-archive $(BUILD)/lib/ctl.a -Wl,--no-whole-archive \
	    $(filter-out %/ctl.a,$(TMTPCTL_LIBS)) $(PKG_LIBS)

# --- unit tests: tests/unit/<room>/test_<file>.c --------------------------
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))

define unit_rule
$(BUILD)/unit/$(1)/%: tests/unit/$(1)/%.c $(wildcard tests/unit/*.h tests/unit/$(1)/*.h) $(call libs_of,$(1))
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) -Itests/unit -MMD -MP $$(ALL_LDFLAGS) -o $$@ $$< $(call libs_of,$(1)) $$(PKG_LIBS) -lcmocka
endef
$(foreach r,$(ROOMS),$(eval $(call unit_rule,$(r))))

.PHONY: unit
unit: $(UNIT_BIN)
	sh tests/unit/run.sh $(UNIT_BIN)

# --- benchmarks: tests/bench/bench_<room>.c and bench_<room>_*.c ------------
define bench_rule
$(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_$(1).c tests/bench/bench_$(1)_*.c)): \
    $(BUILD)/bench/%: tests/bench/%.c $(call libs_of,$(1))
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$< $(call libs_of,$(1)) $$(PKG_LIBS)
endef
$(foreach r,$(ROOMS),$(if $(wildcard tests/bench/bench_$(r).c tests/bench/bench_$(r)_*.c),$(eval $(call bench_rule,$(r)))))

include tests/fuzz/fuzz.mk

.PHONY: layers
layers:
	sh tests/layers.sh

.PHONY: clean
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
