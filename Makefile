# bufpool. `make` and `make install` need a C compiler and the headers of
# LuaJIT and Concurrency Kit; `make demo` and `make test` install what they
# need. `make help` prints the comments that begin with ##.

## where everything is installed
PREFIX ?= /usr/local
INCDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
LUADIR ?= $(PREFIX)/share/lua/5.1
LUALIBDIR ?= $(PREFIX)/lib/lua/5.1
DOCDIR ?= $(PREFIX)/share/doc/bufpool
## goes before every installed path, for packagers
DESTDIR ?=

## the C compiler
CC ?= cc
## added to by the build, as CPPFLAGS, LDFLAGS
CFLAGS ?= -O2 -g
INSTALL ?= install
## what runs Lua, options too
LUAJIT ?= luajit
## what `make demo` digests
DIR ?= /usr/share
## options of the demo, --help lists them
DEMO ?= --check
## where everything is built
BUILD ?= build
# What the module of nginx was built with: it is installed as it was built.
-include $(BUILD)/nginx/given
## sources of nginx, or its headers
NGINX_SRC ?= /usr/share/nginx/src
## the nginx that is to load the module
NGINX ?= nginx
## configure's, without conf_flags
NGINX_FLAGS ?= --with-compat
## V=1 shows the commands of the build
V ?=

# What a variant (asan, tsan, lint) adds when it builds into its own $(BUILD).
VARIANT ?=

# make splits names at spaces. Those of sources and products are relative, so a
# clone may lie in a folder with a space.
$(if $(word 2,$(BUILD)),$(error bufpool: BUILD='$(BUILD)': make cannot build \
	into a folder with a space in its name))

$(if $(wildcard src/bufpool.h),,$(error bufpool: make runs in the folder of \
	its Makefile: make -C $(dir $(lastword $(MAKEFILE_LIST)))))

comma := ,

# A word of the shell, whatever it holds.
word_of = '$(subst ','\'',$(1))'

# A command is announced by a short line: CC src/core/pool.c. With V=1 make
# shows the command itself; with -s it shows neither.
MAKEFLAGS += --no-print-directory
silent = $(findstring s,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
say = $(if $(filter 1,$(V)),,@$(if $(silent),,echo $(call word_of,$(1));))

VERSION := $(shell sed -n 's/^.define BUFPOOL_VERSION "\(.*\)"/\1/p' \
	src/bufpool.h)

# The first of these with a luajit.h. LUA_INCDIR may be given, as LuaRocks
# does, and is passed over when it holds the headers of another Lua.
LUA_INC := $(patsubst %/luajit.h,%,$(firstword $(wildcard $(addsuffix \
	/luajit.h,$(LUA_INCDIR) \
	$(shell pkg-config --variable=includedir luajit 2>/dev/null) \
	/usr/include/luajit-2.1 /usr/local/include/luajit-2.1 \
	/usr/local/openresty/luajit/include/luajit-2.1))))
# What hosts need besides, if pkg-config knows it.
LUAJIT_PC := $(shell pkg-config --exists luajit 2>/dev/null && echo luajit)
LUA_LIBS ?= $(or $(shell pkg-config --libs luajit 2>/dev/null),\
	-L$(LUA_INC)/../../lib -lluajit-5.1)

WARN = -Wall -Wextra -Wshadow -Wconversion
ALL_CPPFLAGS = -Isrc -I$(BUILD) -I$(LUA_INC) $(CPPFLAGS) \
	-MMD -MP -MT $@ -MF $@.d
# What is built does not tell in which folder.
ALL_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -pthread $(WARN) $(TLS) \
	-ffile-prefix-map=$(call word_of,$(CURDIR))=. $(CFLAGS) $(VARIANT)

# Where thread-local variables can be found by descriptors, x86 compilers have
# to be told: the hot paths then call nothing and need no stack frame.
TLS := $(shell echo 'int x;' | $(CC) -mtls-dialect=gnu2 -c -x c \
	-o /dev/null - 2>/dev/null && echo -mtls-dialect=gnu2)
LIBS = -lm -pthread -ldl

CORE_SRC := $(wildcard src/core/*.c)
CORE_OBJ := $(CORE_SRC:%.c=$(BUILD)/%.o)
LUA_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/lua/*.c))
# A folder comes before the one that holds it, as rmdir needs them.
LUA_DIRS = bufpool/ngx/status bufpool/ngx bufpool
LUA_SRC := $(sort $(wildcard $(LUA_DIRS:%=lua/%/*.lua)))
# What Lua runs; types.lua is for editors.
EMBEDDED := $(filter-out lua/bufpool/types.lua,$(LUA_SRC))
SPECS := $(patsubst %.c,$(BUILD)/%,$(wildcard spec/*.c))

CORE = $(BUILD)/lua/bufpool/core.so
ARCHIVES = $(BUILD)/libbufpool.a $(BUILD)/libbufpool_lua.a
# The number rises when a program that was built before no longer runs.
SHARED = $(BUILD)/libbufpool.so.0

.DELETE_ON_ERROR:
.PHONY: all specs examples benches help

## builds the Lua module and the C libraries
all: $(CORE) $(SHARED) $(ARCHIVES)
	@:

## builds the C specs
specs: $(SPECS)
	@:

## builds examples/host
examples: $(BUILD)/examples/host
	@:

# All but dpdk.c, whose headers are not everywhere.
benches: $(addprefix $(BUILD)/bench/,core clear server instructions access.so)
	@:

## lists targets and variables
help:
	@awk ' \
	/^## / { text = substr($$0, 4); next } \
	text == "" { next } \
	/^[A-Z_]+ [?]=/ { \
		value = $$0; sub("^[^=]*= *", "", value); \
		if (value != "" && value !~ /[$$]/) \
			text = text " (" value ")"; \
		variables = variables sprintf("  %-20s %s\n", $$1, text) } \
	/^[a-z-]+:/ { sub(":.*", ""); \
		targets = targets sprintf("  %-20s %s\n", $$0, text) } \
	{ text = "" } \
	END { printf "make TARGET VARIABLE=value\n\n%s\n%s", targets, \
		variables }' Makefile

# The one build recipe of everything in src/ but src/nginx, which nginx's own
# configure builds.
$(BUILD)/src/%.o: src/%.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(LUA_OBJ): | $(BUILD)/cdef.h $(BUILD)/lua_sources.h

# Has a clean-up that runs as LuaJIT unwinds.
$(BUILD)/src/lua/guard.o: ALL_CFLAGS += -fexceptions

# A closing Lua state must not unload code that a thread's exit will run
# (nodelete), no copy of bufpool in a process must mix with another (Bsymbolic),
# and the first call of a function is not to leave registers, which may hold a
# part of a secret, on the stack (now).
$(CORE): $(CORE_OBJ) $(filter-out %/host.o,$(LUA_OBJ))
$(SHARED): $(CORE_OBJ) src/bufpool.map
$(SHARED): SHARED_FLAGS = -Wl,-soname,$(@F),--version-script=src/bufpool.map
$(CORE) $(SHARED):
	@mkdir -p $(@D)
	$(call say,LD $@)$(CC) -shared $(ALL_CFLAGS) -Wl,-z,nodelete \
		-Wl,-Bsymbolic,-z,now $(SHARED_FLAGS) $(LDFLAGS) -o $@ \
		$(filter %.o,$^) -Wl,--as-needed $(LIBS)

# One object with the core in it, because the Lua part knows structs of its own
# core: a host that links libbufpool too gets all of this core, and none of the
# other.
$(BUILD)/bufpool_lua.o: $(CORE_OBJ) $(LUA_OBJ)
	$(call say,LD $@)$(CC) -r -nostdlib \
		$(filter-out -pthread,$(ALL_CFLAGS)) -o $@ $^

$(BUILD)/libbufpool.a: $(CORE_OBJ)
$(BUILD)/libbufpool_lua.a: $(BUILD)/bufpool_lua.o
$(ARCHIVES):
	@rm -f $@
	$(call say,AR $@)$(AR) rcs $@ $^

# C programs of spec/, with the core inside. Where no cmocka is packaged,
# spec/portable stands in for it: CMOCKA= CPPFLAGS=-Ispec/portable.
CMOCKA ?= -lcmocka
HOOKED = $(addprefix $(BUILD)/spec/,progress races work)
WITH_LUA := $(patsubst %.c,$(BUILD)/%,$(shell grep -l '^.include ["<]lua' \
	spec/*.c spec/fuzz/*.c examples/*.c))

FUZZ = $(addprefix $(BUILD)/spec/fuzz/,core threads soak)

$(filter-out $(HOOKED) $(WITH_LUA),$(FUZZ) $(SPECS)): $(BUILD)/spec/%: \
		spec/%.c $(BUILD)/libbufpool.a
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(BUILD)/libbufpool.a $(CMOCKA) $(LIBS)

# Programs that hold a LuaJIT.
$(WITH_LUA): $(BUILD)/%: %.c $(BUILD)/libbufpool_lua.a
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(BUILD)/libbufpool_lua.a -Wl,--as-needed \
		$(if $(filter spec/%,$<),$(CMOCKA)) $(LUA_LIBS) $(LIBS)

# Programs that stop threads wherever src/core/hook.h lets them, so they have
# the core compiled in once more, with hooks.
$(HOOKED): $(BUILD)/spec/%: spec/%.c $(wildcard src/core/*.[ch]) \
		$(BUILD)/spec/places.h
	$(call say,CC $<)$(CC) -Isrc -I$(BUILD) $(CPPFLAGS) $(ALL_CFLAGS) \
		-DBUFPOOL_HOOKS $(LDFLAGS) -o $@ $< $(CORE_SRC) \
		$(CMOCKA) $(LIBS)

# Every place that the sources name.
$(BUILD)/spec/places.h: $(wildcard src/core/*.[ch]) | $(BUILD)/headers
	@mkdir -p $(@D)
	@grep -oh 'hook("[^"]*")' src/core/*.[ch] | sort -u | \
		sed 's/hook(\(.*\))/\1,/' >$@

# Says what is missing before the compiler does, and better. Each step needs the
# one before it: a compiler, the C library, LuaJIT, Concurrency Kit.
try = $(CC) $(CPPFLAGS) -fsyntax-only -x c - >/dev/null 2>&1
lacks = { echo "bufpool: no "$(call word_of,$(1)) >&2; exit 1; }

$(BUILD)/headers:
	@mkdir -p $(@D)
	@echo 'int x;' | $(try) || $(call lacks,C compiler: '$(CC)' does not \
		compile: install gcc or clang$(comma) or give CC=)
	@echo 'int x[sizeof(void *) == 8 ? 1 : -1];' | $(try) || $(call \
		lacks,64-bit system: '$(CC)' compiles for 32 bits$(comma) \
		where bufpool does not run)
	@echo '#include <pthread.h>' | $(try) || $(call lacks,headers of the C \
		library (pthread.h): install libc6-dev)
	@test -n "$(LUA_INC)" || $(call lacks,LuaJIT headers (luajit.h): \
		install libluajit2-5.1-dev or libluajit-5.1-dev$(comma) or \
		give LUA_INCDIR=)
	@echo '#include <ck_ring.h>' | $(try) || $(call lacks,Concurrency Kit \
		headers (ck_ring.h): install libck-dev$(comma) or give \
		CPPFLAGS=-I...)
	@touch $@

# As C strings: what LuaJIT is to parse, and the Lua files themselves. Sizes are
# signed to LuaJIT: they are below 2^63, and convert with a branch less.
QUOTE = s/[\\"?]/\\&/g; s/.*/"&\\n"/
SIGNED = s/_Atomic //g; s/\<size_t\>/ptrdiff_t/g
MARKED = /^\/\* ffi: begin \*\/$$/,/^\/\* ffi: end \*\/$$/

# In the order in which one needs the other.
FOR_FFI = src/core/buf.h src/nginx/piece.h src/lua/box.h src/lua/handle.h \
	src/lua/append.h src/lua/bytes.h src/lua/file.h src/lua/calls.h
$(BUILD)/cdef.h: $(FOR_FFI) Makefile
	@mkdir -p $(@D)
	$(call say,GEN $@)set -e; { \
	echo 'static const char bufpool_cdef[] ='; \
	sed -n '$(MARKED){ //d; $(SIGNED); $(QUOTE); p; }' \
		$(FOR_FFI); \
	echo ';'; } >$@

# The folders are listed so that a file removed is noticed.
$(BUILD)/lua_sources.h: $(EMBEDDED) $(LUA_DIRS:%=lua/%) Makefile
	@mkdir -p $(@D)
	$(call say,GEN $@)set -e; { \
	echo 'static const struct lua_source { const char *name, *text; }'; \
	echo 'lua_sources[] = {'; \
	for f in $(EMBEDDED); do \
		name=$$(echo "$$f" | \
			sed 's|^lua/||; s|\.lua$$||; s|/init$$||; s|/|.|g'); \
		echo "{ \"$$name\", \"\""; sed '$(QUOTE)' "$$f"; echo '},'; \
	done; echo '};'; } >$@

# What a rock holds, and what everyone else gets besides. $(call at,DIR,FILES):
# the files as they stand in that folder, as words of the shell.
HEADERS = src/bufpool.h src/bufpool_lua.h
PC = bufpool.pc bufpool_lua.pc
CMAKE = bufpool-config.cmake bufpool-config-version.cmake
EXAMPLES = $(wildcard examples/*.* examples/openresty/* examples/monitoring/*)
EXAMPLE_DIRS = examples/openresty examples/monitoring examples
to = $(call word_of,$(DESTDIR)$(1))
at = $(call below,$(1),$(notdir $(2)))
below = $(foreach name,$(2),$(call to,$(1)/$(name)))

# The module is built again when what it is built from or for has changed, and
# tried again with each nginx. An update of nginx-dev brings older dates along,
# so the contents decide.
NGINX_MODULE = $(BUILD)/nginx/ngx_http_bufpool_module.so
.PHONY: nginx-module install-nginx-module uninstall-nginx-module FORCE
## builds the module of nginx from NGINX_SRC
nginx-module: $(BUILD)/nginx/accepted
	@:

$(BUILD)/nginx/for: FORCE
	@mkdir -p $(@D)
	@.ci/nginx-module describe $(call word_of,$(NGINX_SRC)) \
		$(call word_of,$(NGINX)) $(call word_of,$(NGINX_FLAGS)) \
		>$@.now
	@cmp -s $@ $@.now || cp $@.now $@

$(NGINX_MODULE): $(wildcard src/nginx/*) .ci/nginx-module $(BUILD)/nginx/for
	$(call say,NGINX $@).ci/nginx-module build \
		$(call word_of,$(NGINX_SRC)) $(BUILD)/nginx \
		$(call word_of,$(NGINX_FLAGS))

$(BUILD)/nginx/accepted: $(NGINX_MODULE)
	@.ci/nginx-module try $(BUILD)/nginx $(call word_of,$(NGINX))
	@printf '%s ?= %s\n' NGINX_SRC $(call word_of,$(NGINX_SRC)) \
		NGINX $(call word_of,$(NGINX)) \
		NGINX_FLAGS $(call word_of,$(NGINX_FLAGS)) >$(BUILD)/nginx/given
	@touch $@

## where nginx looks for its modules: nginx -V
NGINX_MODULES ?= $(shell .ci/nginx-module where $(call word_of,$(NGINX)))

## installs the module of nginx among nginx's
install-nginx-module: nginx-module
	@test -n $(call word_of,$(NGINX_MODULES)) || $(call lacks,nginx to \
		install the module for: '$(NGINX)' is none: give NGINX= or \
		NGINX_MODULES=)
	$(call say,INSTALL $(DESTDIR)$(NGINX_MODULES))$(INSTALL) -d \
		$(call to,$(NGINX_MODULES))
	@$(INSTALL) -m 644 $(NGINX_MODULE) $(call to,$(NGINX_MODULES))

uninstall-nginx-module:
	@name=$(call to,$(NGINX_MODULES)/$(notdir $(NGINX_MODULE))); \
	test ! -e "$$name" || { echo "RM $$name"; rm -f "$$name"; }

.PHONY: install install-module uninstall
install-module: $(CORE)
	$(call say,INSTALL $(DESTDIR)$(LUADIR)/bufpool)$(INSTALL) -d \
		$(call below,$(LUADIR),$(LUA_DIRS)) \
		$(call to,$(LUALIBDIR)/bufpool)
	@$(foreach dir,$(LUA_DIRS),$(INSTALL) -m 644 \
		$(wildcard lua/$(dir)/*.lua) $(call to,$(LUADIR)/$(dir)) &&) :
	@$(INSTALL) -m 755 $(CORE) $(call to,$(LUALIBDIR)/bufpool)

## installs all that was built, below PREFIX
install: all install-module
	$(call say,INSTALL $(DESTDIR)$(LIBDIR))$(INSTALL) -d \
		$(call below,$(LIBDIR),pkgconfig cmake/bufpool) \
		$(call to,$(INCDIR)) $(call below,$(DOCDIR),$(EXAMPLE_DIRS))
	@$(INSTALL) -m 644 $(HEADERS) $(call to,$(INCDIR))
	@$(INSTALL) -m 644 $(ARCHIVES) $(SHARED) $(call to,$(LIBDIR))
	@ln -sf $(notdir $(SHARED)) $(call to,$(LIBDIR)/libbufpool.so)
	@for name in $(PC) $(CMAKE); do \
		sed -e 's|@PREFIX@|'$(call pc_word,$(PREFIX))'|' \
		-e 's|@INCDIR@|'$(call pc_dir,$(INCDIR))'|' \
		-e 's|@LIBDIR@|'$(call pc_dir,$(LIBDIR))'|' \
		-e 's|@VERSION@|$(VERSION)|; s|@LUAJIT@|$(LUAJIT_PC)|' \
		src/$$name.in >$(BUILD)/$$name || exit 1; \
	done
	@$(INSTALL) -m 644 $(PC:%=$(BUILD)/%) $(call to,$(LIBDIR)/pkgconfig)
	@$(INSTALL) -m 644 $(CMAKE:%=$(BUILD)/%) \
		$(call to,$(LIBDIR)/cmake/bufpool)
	@$(foreach name,$(EXAMPLES),$(INSTALL) \
		-m $(if $(filter %/run,$(name)),755,644) $(name) \
		$(call to,$(DOCDIR)/$(name)) &&) :

# A path as pkg-config and CMake want it, with spaces escaped, and then as sed
# does. A folder in the prefix is named by it, for those who move the whole.
pc_dir = $(call pc_word,$(subst |:,,$(subst |:$(PREFIX)/,$${prefix}/,|:$(1))))
space := $(subst x,,x x)
pc_word = $(call word_of,$(subst |,\|,$(subst &,\&,$(subst \,\\,$(subst \
	$(space),\ ,$(1))))))

## takes back what both installs put there
uninstall: uninstall-nginx-module
	$(call say,RM $(DESTDIR)$(LUADIR)/bufpool)rm -f \
		$(call below,$(LUADIR),$(LUA_SRC:lua/%=%)) \
		$(call at,$(LUALIBDIR)/bufpool,$(CORE))
	$(call say,RM $(DESTDIR)$(LIBDIR))rm -f \
		$(call at,$(INCDIR),$(HEADERS)) \
		$(call at,$(LIBDIR),$(ARCHIVES) $(SHARED) libbufpool.so) \
		$(call at,$(LIBDIR)/pkgconfig,$(PC)) \
		$(call at,$(LIBDIR)/cmake/bufpool,$(CMAKE)) \
		$(call below,$(DOCDIR),$(EXAMPLES))
	@rmdir $(call below,$(LUADIR),$(LUA_DIRS)) \
		$(call below,$(DOCDIR),$(EXAMPLE_DIRS)) $(call to,$(DOCDIR)) \
		$(call to,$(LIBDIR)/cmake/bufpool) \
		$(call to,$(LUALIBDIR)/bufpool) 2>/dev/null || :

# A release: a tarball of what git knows, as it lies there, and a rockspec that
# tells LuaRocks where the tarball is. The folder is a server for LuaRocks.
ROCK = bufpool-$(VERSION)
## the address under which build/rock will be found
ROCK_URL ?= file://$(CURDIR)/$(BUILD)/rock
rock_url = $(subst |,\|,$(subst &,\&,$(ROCK_URL)/$(ROCK).tar.gz))

.PHONY: rock
## makes a tarball, a rockspec and a rock: build/rock
rock: deps-test
	@rm -rf $(BUILD)/rock
	@mkdir -p $(BUILD)/rock
	$(call say,TAR $(BUILD)/rock/$(ROCK).tar.gz)when=$$(git log -1 \
		--format=%ct) && git ls-files -z | LC_ALL=C sort -z | \
		tar -cz --null -T - \
		--owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
		--mtime=@$$when \
		--transform='s|^|$(ROCK)/|' -f $(BUILD)/rock/$(ROCK).tar.gz
	@sed 's|^source = .*|source = { url = '$(call \
		word_of,[[$(rock_url)]])' }|' \
		bufpool-*.rockspec >$(BUILD)/rock/$(ROCK)-1.rockspec
	$(call say,ZIP $(BUILD)/rock/$(ROCK)-1.src.rock)cd $(BUILD)/rock && \
		zip -qX $(ROCK)-1.src.rock $(ROCK).tar.gz $(ROCK)-1.rockspec
	@luarocks-admin --lua-version 5.1 make-manifest $(BUILD)/rock >/dev/null

.PHONY: deb
## builds packages of Debian: build/deb
deb:
	@rm -rf $(BUILD)/deb
	@mkdir -p $(BUILD)/deb/$(ROCK)
	@git ls-files -z | tar -c --null -T - | tar -x -C $(BUILD)/deb/$(ROCK)
	@mv $(BUILD)/deb/$(ROCK)/.ci/packaging/debian $(BUILD)/deb/$(ROCK)
	@cd $(BUILD)/deb/$(ROCK) && env -u MAKEFLAGS -u MAKELEVEL -u BUILD \
		dpkg-buildpackage -us -uc
	@lintian --fail-on error,warning $(BUILD)/deb/*.changes

# What people run. DEPS=: keeps these from installing packages.
.PHONY: deps deps-demo deps-test deps-check deps-bench deps-openresty
.PHONY: demo openresty check distros test for-specs fuzz
.PHONY: test-jit
.PHONY: test-luajit lint portability asan tsan memcheck coverage clean
.PHONY: bench-lua bench-core bench-large bench-server bench-openresty
.PHONY: bench-rivals
.PHONY: bench-instructions soak soak-openresty
## stages of make check: all
STAGES ?=
## seconds of each program of make fuzz, and its seed
TIME ?=
SEED ?=
## of make soak
HOURS ?= 1
## DEPS=: keeps make from installing packages
DEPS ?= .ci/deps
## the specs that test, asan and memcheck run: all of spec/
SPEC ?= $(sort $(wildcard spec/*_spec.lua)) $(sort $(wildcard spec/*.c))
SLOW = %stress.c %fork.c %progress.c %fenced.c %sandbox.c %names.c \
	%threads.c %failures.c %guard.c %system.c %large.c %ticket.c %work.c
# What specs that load the module of nginx need, where it can be built.
FOR_NGINX = $(if $(wildcard $(addprefix $(NGINX_SRC)/,configure \
	auto/configure)),$(if $(filter spec/8%_spec.lua,$(SPEC)),nginx-module))
# Which programs specs run.
FOR_SPECS = LUAJIT=$(LUAJIT) NGINX=$(call word_of,$(NGINX)) \
	NGINX_SRC=$(call word_of,$(NGINX_SRC))
# What the specs need to be built. fenced runs others; 12 runs numa.
for-specs: $(patsubst %.c,$(BUILD)/%,$(filter %.c,$(SPEC))) \
	$(if $(filter %.lua,$(SPEC))$(filter \
		$(WITH_LUA),$(SPEC:%.c=$(BUILD)/%)),all) \
	$(if $(filter %/fenced.c,$(SPEC)),specs) \
	$(if $(filter %numa_spec.lua,$(SPEC)),$(BUILD)/spec/numa) \
	$(if $(filter file,$(origin SPEC)),all specs examples)
	@:

LUA_ENV = LUA_PATH='lua/?.lua;lua/?/init.lua;;' \
	LUA_CPATH='$(BUILD)/lua/?.so;;'

## installs the packages that these targets need
deps: deps-check deps-bench deps-openresty

deps-demo deps-test deps-check deps-bench deps-openresty:
	@$(DEPS) $(@:deps-%=%)

# As many at a time as there are cores, unless make was told how many.
PARALLEL = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

# Another make, for what was just installed has to be found.
## finds the duplicate files below DIR, through a pool
demo: deps-demo
	@$(MAKE) $(PARALLEL) all
	@$(LUA_ENV) $(LUAJIT) examples/digest.lua $(DEMO) -- \
		$(call word_of,$(DIR))

# Without the module of nginx all works, with one copy more.
## runs examples/openresty in nginx, under load
openresty: deps-openresty
	@$(MAKE) all
	@$(MAKE) nginx-module || echo "bufpool: going on without the module"
	@BUILD=$(BUILD) NGINX=$(call word_of,$(NGINX)) examples/openresty/run

## runs every stage that must pass, as CI does
check:
	+@.ci/run $(STAGES)

## runs make demo and make test in fresh Debians
distros:
	@.ci/distros

## runs C specs on Debian's kernels in virtual machines
kernels:
	@.ci/kernels

## runs specs: SPEC="spec/pool.c spec/05-io_spec.lua"
test: deps-test
	@$(MAKE) $(PARALLEL) for-specs $(FOR_NGINX)
	@$(FOR_SPECS) .ci/test $(SPEC)

# Without TIME the programs are those of one seed, the same each time.
## runs generated programs against models: TIME=600
fuzz: deps-test
	@$(MAKE) $(PARALLEL) all $(FUZZ) nginx-module
	@$(FOR_SPECS) $(if $(TIME)$(SEED),,SEED=1) AGAIN=fuzz \
		.ci/test $(or $(filter spec/fuzz/%,$(SPEC)),$(wildcard \
		spec/fuzz/*.c spec/fuzz/*.lua))

## does all at once in one process, for HOURS
soak: deps-test
	@$(MAKE) $(BUILD)/spec/fuzz/soak
	@TIME=$$(awk 'BEGIN { print int(3600 * $(HOURS)) }') AGAIN=soak \
		.ci/test spec/fuzz/soak.c

# The Lua specs in the interpreter, and on the stock LuaJIT, both ways: the one
# of Debian 12, unpacked, as it cannot be installed beside OpenResty's.
# Where pages lie is the core's work, whatever the LuaJIT.
JIT_SPEC = $(filter-out %install_spec.lua %shelf_spec.lua spec/8%_spec.lua \
	%numa_spec.lua,$(filter %_spec.lua,$(SPEC)))
## runs Lua specs without the JIT and on stock LuaJIT
test-jit: deps-test
	@$(MAKE) all
	@.ci/test-jit $(JIT_SPEC)

## runs Lua specs on LuaJITs built from LUAJIT_SRC
test-luajit: deps-test
	@$(MAKE) all
	@.ci/test-luajit $(JIT_SPEC)

# What the documents say about speed comes from here: make bench-lua OUT=doc,
# make bench-core OUT=doc, make bench-large OUT=doc. BENCH= gives other options,
# as the files tell.
BENCH = $(if $(OUT),--out $(OUT))
## measures Lua; OUT=doc writes lua-performance.md
bench-lua: $(CORE) $(BUILD)/bench/access.so
	@LUA_PATH='bench/?.lua;lua/?.lua;lua/?/init.lua;;' \
		LUA_CPATH='$(BUILD)/lua/?.so;$(BUILD)/bench/?.so;;' \
		$(LUAJIT) bench/lua.lua $(BENCH)

$(BUILD)/bench/access.so: bench/access.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) -shared $(ALL_CPPFLAGS) $(ALL_CFLAGS) -o $@ $<

## measures C; OUT=doc writes performance.md
bench-core: deps-bench
	@$(MAKE) bench-rivals
	@LUA_PATH='bench/?.lua;;' $(LUAJIT) bench/core.lua \
		--core $(BUILD)/bench/core $(BENCH)

## measures above 1 MiB; OUT=doc: large-performance.md
bench-large: deps-bench
	@$(MAKE) $(BUILD)/bench/core $(BUILD)/bench/clear
	@LUA_PATH='bench/?.lua;;' $(LUAJIT) bench/large.lua \
		--core $(BUILD)/bench/core --clear $(BUILD)/bench/clear $(BENCH)

## measures a server in C; OUT=doc: server-performance.md
bench-server: deps-bench
	@$(MAKE) $(BUILD)/bench/server
	@LUA_PATH='bench/?.lua;;' $(LUAJIT) bench/server.lua \
		--server $(BUILD)/bench/server $(BENCH)

## measures nginx handlers
bench-openresty: deps-bench deps-test
	@$(MAKE) all nginx-module
	@$(FOR_SPECS) \
		LUA_PATH='bench/?.lua;spec/?.lua;lua/?.lua;lua/?/init.lua;;' \
		LUA_CPATH='$(BUILD)/lua/?.so;;' $(LUAJIT) bench/openresty.lua \
		--module "$$PWD/$(NGINX_MODULE)" $(BENCH)

## has nginx under load for a quarter of an hour
soak-openresty: deps-bench deps-test
	@$(MAKE) all nginx-module
	@$(FOR_SPECS) \
		LUA_PATH='bench/?.lua;spec/?.lua;lua/?.lua;lua/?/init.lua;;' \
		LUA_CPATH='$(BUILD)/lua/?.so;;' \
		$(LUAJIT) bench/openresty_soak.lua \
		--module "$$PWD/$(NGINX_MODULE)" $(SOAK)

$(addprefix $(BUILD)/bench/,core clear server instructions): \
		$(BUILD)/bench/%: bench/%.c $(BUILD)/libbufpool.a
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) \
		-o $@ $< $(BUILD)/libbufpool.a $(LIBS)

# Beside the program, which finds out by itself what is there. What is lent by
# DPDK has no part in our warnings.
bench-rivals: $(BUILD)/bench/core
	@pkg-config --exists libdpdk && $(CC) -shared $(ALL_CFLAGS) \
		$$(pkg-config --cflags libdpdk | sed 's/-I/-isystem /g') \
		-o $(BUILD)/bench/dpdk.so bench/dpdk.c \
		-Wl,--no-as-needed -lrte_mempool_ring -Wl,--as-needed \
		-lrte_mempool -lrte_ring -lrte_eal || \
		echo "bufpool: rte_mempool is left out: no libdpdk" >&2
	@CARGO_TARGET_DIR="$$PWD/$(BUILD)/bench/rust" cargo build -q \
		--release --manifest-path bench/rust/Cargo.toml && \
		cp $(BUILD)/bench/rust/release/librivals.so \
		$(BUILD)/bench/rust.so || \
		echo "bufpool: the Rust pools are left out: no cargo, no" \
		"crates registry, or a cargo too old" >&2

# In instructions. What is not the fast path's is in both runs alike.
## counts instructions of checkout and release
bench-instructions: deps-bench
	@$(MAKE) $(BUILD)/bench/instructions
	@count() { valgrind --tool=callgrind --callgrind-out-file=/dev/null \
		--toggle-collect=bufpool_$$1 $(BUILD)/bench/instructions $$2 \
		2>&1 | sed -n 's/.*Collected : //p'; }; \
	sum=0; for name in checkout release; do \
		few=$$(count $$name 10000); many=$$(count $$name 20000); \
		n=$$(((many - few) / 10000)); \
		echo "$$name: $$n instructions"; sum=$$((sum + n)); \
	done; echo "both: $$sum instructions"

## runs luacheck and the compiler's warnings
lint: deps-test
	@.ci/lint

# Leaks are valgrind's to find: LuaJIT keeps some memory at exit. Lua specs with
# #noasan in their title are left out; the reason stands beside each.
ASAN = -fsanitize=address,undefined -fno-sanitize-recover=undefined
## builds with clang, -O0, -flto, for musl, for arm64
portability: deps-check
	@.ci/portability

## runs specs under AddressSanitizer
asan: deps-test
	@$(MAKE) $(PARALLEL) BUILD=build/asan VARIANT='$(ASAN)' for-specs
	@BUILD=build/asan AGAIN=asan \
		PRELOAD=$$($(CC) -print-file-name=libasan.so) \
		BUSTED=--exclude-tags=noasan \
		ASAN_OPTIONS=detect_leaks=0 STRESS_OPS=2000000 FORKS=200 \
		FAILURES_STEP=4 THREADS=10000 REQUESTS=20000 \
		.ci/test $(filter %.c spec/0%.lua,$(filter-out %fenced.c, \
		$(SPEC)))

# Specs in which threads meet; of threads.c, 2000 at once take minutes here.
TSAN_SPEC = $(filter $(addprefix spec/,$(addsuffix .c,cache checkout large \
	names pool sites stress ticket)),$(SPEC))
# Without address randomization where that may be switched off: some kernels
# place mappings where ThreadSanitizer does not expect them.
## runs specs of threads under ThreadSanitizer
tsan: deps-test
	@$(MAKE) $(PARALLEL) BUILD=build/tsan VARIANT=-fsanitize=thread \
		SPEC='$(TSAN_SPEC)' for-specs
	@BUILD=build/tsan AGAIN=tsan TSAN_OPTIONS=halt_on_error=1 \
		STRESS_OPS=1000000 \
		WRAP="$$(setarch -R echo setarch -R 2>/dev/null)" \
		.ci/test $(TSAN_SPEC)

# Fair, because a thread that never sleeps may keep the others out for minutes.
VALGRIND = valgrind -q --fair-sched=try --leak-check=full --error-exitcode=99 \
	--errors-for-leak-kinds=definite,possible
## runs the C specs under valgrind
memcheck: deps-test
	@$(MAKE) for-specs
	@WRAP='$(VALGRIND)' AGAIN=memcheck ROUNDS=4 REQUESTS=4000 .ci/test \
		$(filter-out $(SLOW),$(filter %.c,$(SPEC)))

# Without optimization, because branches of the source are counted. Processes
# that end by _exit, abort or a signal write their counters first: see ending.c.
# nginx's configure names the sources of our module as bufpool/NAME. Without
# -fno-builtin-fork a child forgets what it counted while it was forked.
COVERAGE = -O0 --coverage -fprofile-update=atomic -fno-builtin-fork \
	-fprofile-prefix-map=bufpool=src/nginx
ENDING = build/coverage/ending.o
WRAPPED = $(addprefix -Wl$(comma)--wrap=,abort _exit sigaction) $(ENDING)
## measures which lines and branches of src specs run
coverage: deps-check
	@mkdir -p $(dir $(ENDING))
	@$(CC) -fPIC -c -o $(ENDING) spec/support/ending.c
	@$(MAKE) $(PARALLEL) BUILD=build/coverage VARIANT='$(COVERAGE)' \
		LDFLAGS='$(WRAPPED)' for-specs $(FOR_NGINX)
	@find build/coverage -name '*.gcda' -delete
	-@BUILD=build/coverage AGAIN=coverage $(FOR_SPECS) .ci/test $(SPEC)
	-@BUILD=build/coverage AGAIN=coverage $(FOR_SPECS) \
		LUAJIT='$(LUAJIT) -joff' .ci/test $(filter \
		spec/0%_spec.lua spec/1%_spec.lua spec/3%_spec.lua,$(SPEC))
	@gcovr --root . --filter src/ --exclude-throw-branches --xml-pretty \
		build/coverage | $(LUAJIT) .ci/coverage.lua 93

## removes what was built
clean:
	rm -rf build

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/src/*/*.d)
