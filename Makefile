# bufpool. `make` and `make install` need a C compiler and the headers of
# LuaJIT and Concurrency Kit; `make demo` and `make test` install what they
# need. CFLAGS, CPPFLAGS and LDFLAGS are yours; ours are added to them.

PREFIX ?= /usr/local
INCDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
LUADIR ?= $(PREFIX)/share/lua/5.1
LUALIBDIR ?= $(PREFIX)/lib/lua/5.1
DESTDIR ?=

CFLAGS ?= -O2 -g
INSTALL ?= install
LUAJIT ?= luajit
DIR ?= /usr/share
BUILD ?= build

# What a variant (asan, tsan, lint) adds when it builds into its own $(BUILD).
VARIANT ?=

VERSION := $(shell sed -n 's/^.define BUFPOOL_VERSION "\(.*\)"/\1/p' \
	src/bufpool.h)

# The first of these with a luajit.h. LUA_INCDIR may be given, as LuaRocks
# does, and is passed over when it holds the headers of another Lua.
LUA_INC := $(patsubst %/luajit.h,%,$(firstword $(wildcard $(addsuffix \
	/luajit.h,$(LUA_INCDIR) \
	$(shell pkg-config --variable=includedir luajit 2>/dev/null) \
	/usr/include/luajit-2.1 /usr/local/include/luajit-2.1 \
	/usr/local/openresty/luajit/include/luajit-2.1))))
LUA_LIBS ?= $(or $(shell pkg-config --libs luajit 2>/dev/null),\
	-L$(LUA_INC)/../../lib -lluajit-5.1)

WARN = -Wall -Wextra -Wshadow -Wconversion
ALL_CPPFLAGS = -Isrc -I$(BUILD) -I$(LUA_INC) $(CPPFLAGS) \
	-MMD -MP -MT $@ -MF $@.d
ALL_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -pthread $(WARN) $(TLS) \
	$(CFLAGS) $(VARIANT)

# Where thread-local variables can be found by descriptors, x86 compilers have
# to be told: the hot paths then call nothing and need no stack frame.
TLS := $(shell echo 'int x;' | $(CC) -mtls-dialect=gnu2 -c -x c \
	-o /dev/null - 2>/dev/null && echo -mtls-dialect=gnu2)
LIBS = -lm -pthread -ldl

CORE_SRC := $(wildcard src/core/*.c)
CORE_OBJ := $(CORE_SRC:%.c=$(BUILD)/%.o)
LUA_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/lua/*.c))
LUA_SRC := $(sort $(wildcard lua/bufpool/*.lua))
SPECS := $(patsubst %.c,$(BUILD)/%,$(wildcard spec/*.c))

CORE = $(BUILD)/lua/bufpool/core.so
ARCHIVES = $(BUILD)/libbufpool.a $(BUILD)/libbufpool_lua.a

.DELETE_ON_ERROR:
.PHONY: all specs examples

all: $(CORE) $(ARCHIVES)
specs: $(SPECS)
examples: $(BUILD)/examples/host

# The one build recipe of everything in src/.
$(BUILD)/src/%.o: src/%.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(LUA_OBJ): | $(BUILD)/cdef.h $(BUILD)/lua_sources.h

# A closing Lua state must not unload code that a thread's exit will run
# (nodelete), and the module must not mix with a host's own copy (Bsymbolic).
$(CORE): $(CORE_OBJ) $(filter-out %/host.o,$(LUA_OBJ))
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_CFLAGS) -Wl,-z,nodelete -Wl,-Bsymbolic \
		$(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libbufpool.a: $(CORE_OBJ)
$(BUILD)/libbufpool_lua.a: $(LUA_OBJ)
$(ARCHIVES):
	@rm -f $@
	$(AR) rcs $@ $^

# C programs of spec/ and examples/, with both libraries inside.
HOOKED = $(BUILD)/spec/progress
$(filter-out $(HOOKED),$(SPECS)) $(BUILD)/examples/host: \
		$(BUILD)/%: %.c $(ARCHIVES)
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< \
		$(BUILD)/libbufpool_lua.a $(BUILD)/libbufpool.a \
		-Wl,--as-needed $(if $(filter spec/%,$<),-lcmocka) \
		$(LUA_LIBS) $(LIBS)

# The program that stops threads wherever src/core/hook.h lets it, so it has the
# core compiled in once more, with hooks, and is told the places that there are.
$(HOOKED): spec/progress.c $(wildcard src/core/*.[ch]) | $(BUILD)/headers
	@mkdir -p $(@D)
	grep -oh 'hook("[^"]*")' src/core/*.[ch] | sort -u | \
		sed 's/hook(\(.*\))/\1,/' >$(@D)/places.h
	$(CC) -Isrc -I$(BUILD) $(CPPFLAGS) $(ALL_CFLAGS) -DBUFPOOL_HOOKS \
		$(LDFLAGS) -o $@ $< $(CORE_SRC) -lcmocka $(LIBS)

# Says what is missing before the compiler does, and better.
$(BUILD)/headers:
	@mkdir -p $(@D)
	@test -n "$(LUA_INC)" || { echo "bufpool: no LuaJIT headers" \
		"(luajit.h): install libluajit2-5.1-dev or libluajit-5.1-dev," \
		"or give LUA_INCDIR=" >&2; exit 1; }
	@echo '#include <ck_ring.h>' | \
		$(CC) $(CPPFLAGS) -E -x c - >/dev/null 2>&1 || \
		{ echo "bufpool: no Concurrency Kit headers (ck_ring.h):" \
		"install libck-dev, or give CPPFLAGS=-I..." >&2; exit 1; }
	@touch $@

# As C strings: what LuaJIT is to parse, and the Lua files themselves. Sizes are
# signed to LuaJIT: they are below 2^63, and convert with a branch less.
QUOTE = s/[\\"?]/\\&/g; s/.*/"&\\n"/
SIGNED = s/_Atomic //g; s/\<size_t\>/ptrdiff_t/g
MARKED = /^\/\* ffi: begin \*\/$$/,/^\/\* ffi: end \*\/$$/

$(BUILD)/cdef.h: src/core/buf.h src/lua/box.h Makefile
	@mkdir -p $(@D)
	@set -e; { echo 'static const char bufpool_cdef[] ='; \
	sed -n '$(MARKED){ //d; $(SIGNED); $(QUOTE); p; }' \
		src/core/buf.h src/lua/box.h; \
	echo ';'; } >$@

# The directory itself is listed so that a file removed is noticed.
$(BUILD)/lua_sources.h: $(LUA_SRC) lua/bufpool Makefile
	@mkdir -p $(@D)
	@set -e; { \
	echo 'static const struct lua_source { const char *name, *text; }'; \
	echo 'lua_sources[] = {'; \
	for f in $(LUA_SRC); do \
		name=$$(echo "$$f" | \
			sed 's|^lua/||; s|\.lua$$||; s|/init$$||; s|/|.|g'); \
		echo "{ \"$$name\", \"\""; sed '$(QUOTE)' "$$f"; echo '},'; \
	done; echo '};'; } >$@

# What a rock holds, and what everyone else gets besides.
.PHONY: install install-module
install-module: $(CORE)
	$(INSTALL) -d $(DESTDIR)$(LUADIR)/bufpool $(DESTDIR)$(LUALIBDIR)/bufpool
	$(INSTALL) -m 644 $(LUA_SRC) $(DESTDIR)$(LUADIR)/bufpool
	$(INSTALL) -m 755 $(CORE) $(DESTDIR)$(LUALIBDIR)/bufpool

install: all install-module
	$(INSTALL) -d $(DESTDIR)$(INCDIR) $(DESTDIR)$(LIBDIR)/pkgconfig
	$(INSTALL) -m 644 src/bufpool.h src/bufpool_lua.h $(DESTDIR)$(INCDIR)
	$(INSTALL) -m 644 $(ARCHIVES) $(DESTDIR)$(LIBDIR)
	for name in bufpool bufpool_lua; do \
		sed -e 's|@INCDIR@|$(INCDIR)|; s|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' src/$$name.pc.in \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/$$name.pc || exit 1; \
	done

# What people run. DEPS=: keeps these from installing packages.
.PHONY: deps-demo deps-test deps-bench demo test test-jit test-luajit lint asan
.PHONY: tsan memcheck clean bench-lua bench-core bench-rivals
.PHONY: bench-instructions
DEPS ?= .ci/deps
SPEC ?= $(sort $(wildcard spec/*.c)) $(sort $(wildcard spec/*_spec.lua))
STRESS = $(filter %stress.c,$(wildcard spec/*.c))
SLOW = %stress.c %fork.c %progress.c %fenced.c %sandbox.c %names.c \
	%threads.c %failures.c %system.c
LUA_ENV = LUA_PATH='lua/?.lua;lua/?/init.lua;;' \
	LUA_CPATH='$(BUILD)/lua/?.so;;'

deps-demo deps-test deps-bench:
	@$(DEPS) $(@:deps-%=%)

# Another make, for what was just installed has to be found.
demo: deps-demo
	@$(MAKE) -s all
	@$(LUA_ENV) $(LUAJIT) examples/digest.lua --check $(DIR)

test: deps-test
	@$(MAKE) -s all specs examples
	@LUAJIT=$(LUAJIT) .ci/test $(SPEC)

# The Lua specs in the interpreter, and on the stock LuaJIT, both ways: the one
# of Debian's packages, unpacked, as it cannot be installed beside OpenResty's.
JIT_SPEC = $(filter-out %install_spec.lua %openresty_spec.lua,\
	$(filter %_spec.lua,$(SPEC)))
test-jit: deps-test
	@$(MAKE) -s all
	@.ci/test-jit $(JIT_SPEC)

# The Lua specs on every LuaJIT whose source archive is in LUAJIT_SRC.
test-luajit: deps-test
	@$(MAKE) -s all
	@.ci/test-luajit $(JIT_SPEC)

# What the documents say about speed comes from here: make bench-lua OUT=doc,
# make bench-core OUT=doc. BENCH= gives other options, as the files tell.
BENCH = $(if $(OUT),--out $(OUT))
bench-lua: $(CORE) $(BUILD)/bench/access.so
	@LUA_PATH='bench/?.lua;lua/?.lua;lua/?/init.lua;;' \
		LUA_CPATH='$(BUILD)/lua/?.so;$(BUILD)/bench/?.so;;' \
		$(LUAJIT) bench/lua.lua $(BENCH)

$(BUILD)/bench/access.so: bench/access.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_CPPFLAGS) $(ALL_CFLAGS) -o $@ $<

bench-core: deps-bench
	@$(MAKE) -s bench-rivals
	@LUA_PATH='bench/?.lua;;' $(LUAJIT) bench/core.lua \
		--core $(BUILD)/bench/core $(BENCH)

$(BUILD)/bench/core $(BUILD)/bench/instructions: $(BUILD)/bench/%: bench/%.c \
		$(BUILD)/libbufpool.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< \
		$(BUILD)/libbufpool.a $(LIBS)

# Beside the program, which finds out by itself what is there. What is lent by
# DPDK has no part in our warnings.
bench-rivals: $(BUILD)/bench/core
	@pkg-config --exists libdpdk && $(CC) -shared $(ALL_CFLAGS) \
		$$(pkg-config --cflags libdpdk | sed 's/-I/-isystem /g') \
		-o $(BUILD)/bench/dpdk.so bench/dpdk.c \
		-Wl,--no-as-needed -lrte_mempool_ring -Wl,--as-needed \
		-lrte_mempool -lrte_ring -lrte_eal || \
		echo "bufpool: rte_mempool is left out: no libdpdk" >&2
	@CARGO_TARGET_DIR=$(abspath $(BUILD))/bench/rust cargo build -q \
		--release --manifest-path bench/rust/Cargo.toml && \
		cp $(BUILD)/bench/rust/release/librivals.so \
		$(BUILD)/bench/rust.so || \
		echo "bufpool: the Rust pools are left out: no cargo, no" \
		"crates registry, or a cargo too old" >&2

# In instructions. What is not the fast path's is in both runs alike.
bench-instructions: deps-bench
	@$(MAKE) -s $(BUILD)/bench/instructions
	@count() { valgrind --tool=callgrind --callgrind-out-file=/dev/null \
		--toggle-collect=bufpool_$$1 $(BUILD)/bench/instructions $$2 \
		2>&1 | sed -n 's/.*Collected : //p'; }; \
	sum=0; for name in checkout release; do \
		few=$$(count $$name 10000); many=$$(count $$name 20000); \
		n=$$(((many - few) / 10000)); \
		echo "$$name: $$n instructions"; sum=$$((sum + n)); \
	done; echo "both: $$sum instructions"

lint: deps-test
	@.ci/lint

# Leaks are valgrind's to find: LuaJIT keeps some memory at exit. Lua specs with
# #noasan in their title are left out; the reason stands beside each.
ASAN = -fsanitize=address,undefined -fno-sanitize-recover=undefined
asan: deps-test
	@$(MAKE) -s BUILD=build/asan VARIANT='$(ASAN)' all specs
	@BUILD=build/asan PRELOAD=$$($(CC) -print-file-name=libasan.so) \
		BUSTED=--exclude-tags=noasan \
		ASAN_OPTIONS=detect_leaks=0 STRESS_OPS=2000000 FORKS=200 \
		FAILURES_STEP=4 THREADS=10000 \
		.ci/test $(filter %.c spec/0%.lua,$(filter-out %fenced.c, \
		$(SPEC)))

# Without address randomization where that may be switched off: some kernels
# place mappings where ThreadSanitizer does not expect them.
tsan: deps-test
	@$(MAKE) -s BUILD=build/tsan VARIANT=-fsanitize=thread all specs
	@BUILD=build/tsan TSAN_OPTIONS=halt_on_error=1 STRESS_OPS=1000000 \
		WRAP="$$(setarch -R echo setarch -R 2>/dev/null)" \
		.ci/test $(STRESS)

VALGRIND = valgrind -q --leak-check=full --error-exitcode=99 \
	--errors-for-leak-kinds=definite,possible
memcheck: deps-test
	@$(MAKE) -s all specs
	@WRAP='$(VALGRIND)' ROUNDS=4 .ci/test \
		$(filter-out $(SLOW),$(filter %.c,$(SPEC)))

clean:
	rm -rf build

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/src/*/*.d)
