# Fuzzing what strangers send (libFuzzer, clang).
#   make fuzz [FUZZ_SECONDS=60] [FUZZ_TARGETS="server client"]
#   make fuzz-replay            the committed seeds through every target, any compiler
# What a run finds grows $(BUILD)/fuzz/corpus/<target>; what it breaks on lies in $(BUILD)/fuzz.

FUZZ_TARGETS ?= bencode address command response message card server client lmtp mime
FUZZ_SECONDS ?= 60
FUZZ_CC      ?= clang-14
FUZZ_CFLAGS  := -std=c11 -D_GNU_SOURCE -Iappliance -g -O1 -fno-omit-frame-pointer $(WARN) $(WERROR) \
                $(shell pkg-config --cflags gmime-3.0 2>/dev/null)
FUZZ_SAN     := address,undefined
FUZZ_LIBS    := -lcrypto -lsodium -lutf8proc -lidn2 -ljansson \
                $(shell pkg-config --libs gmime-3.0 2>/dev/null)
FUZZ_SRC     := $(wildcard appliance/dmtp/*.c) appliance/base/buffer.c appliance/base/text.c \
                appliance/base/id.c appliance/base/clock.c appliance/base/digest.c \
                $(wildcard appliance/home/lmtp*.c appliance/home/mime*.c)
FUZZ_OBJ     := $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(FUZZ_SRC))

$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,$(FUZZ_SAN) -fno-sanitize-recover=all \
	    -MMD -MP -c -o $@ $<

$(BUILD)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h $(FUZZ_OBJ)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -Itests/fuzz -fsanitize=fuzzer,$(FUZZ_SAN) -fno-sanitize-recover=all \
	    -o $@ $< $(FUZZ_OBJ) $(FUZZ_LIBS)

$(BUILD)/replay/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c tests/fuzz/fuzz.h \
    $(BUILD)/lib/home.a $(BUILD)/lib/dmtp.a $(BUILD)/lib/base.a
	@mkdir -p $(@D)
	$(if $(V),,@echo "  test  $@")
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/fuzz $(ALL_LDFLAGS) -o $@ $< tests/fuzz/replay.c \
	    $(BUILD)/lib/home.a $(BUILD)/lib/dmtp.a $(BUILD)/lib/base.a $(PKG_LIBS)

.PHONY: fuzz
fuzz: $(FUZZ_TARGETS:%=$(BUILD)/fuzz/fuzz_%)
	@set -e; for t in $(FUZZ_TARGETS); do \
	    mkdir -p $(BUILD)/fuzz/corpus/$$t; \
	    echo "# $$t, $(FUZZ_SECONDS) s"; \
	    $(BUILD)/fuzz/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -timeout=5 -max_len=8192 \
	        -print_final_stats=1 -artifact_prefix=$(BUILD)/fuzz/$$t- \
	        $(BUILD)/fuzz/corpus/$$t tests/fuzz/corpus/$$t 2>&1 | \
	        grep -E 'SUMMARY|ERROR|artifact|stat::number_of_executed|DONE'; \
	    ! ls $(BUILD)/fuzz/$$t-* >/dev/null 2>&1; \
	done

.PHONY: fuzz-replay
fuzz-replay: $(FUZZ_TARGETS:%=$(BUILD)/replay/fuzz_%)
	@set -e; for t in $(FUZZ_TARGETS); do $(BUILD)/replay/fuzz_$$t tests/fuzz/corpus/$$t; done

-include $(FUZZ_OBJ:.o=.d)
