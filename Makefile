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
ALL_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -pthread $(WARN) \
	$(CFLAGS) $(VARIANT)
LIBS = -pthread -ldl

SRC := $(wildcard src/*.c)
CORE_OBJ := $(patsubst src/%.c,$(BUILD)/%.o,$(filter-out src/lua_%,$(SRC)))
LUA_OBJ := $(patsubst src/%.c,$(BUILD)/%.o,$(filter src/lua_%,$(SRC)))
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
$(BUILD)/%.o: src/%.c | $(BUILD)/headers
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(LUA_OBJ): | $(BUILD)/cdef.h $(BUILD)/lua_sources.h

# A closing Lua state must not unload code that a thread's exit will run
# (nodelete), and the module must not mix with a host's own copy (Bsymbolic).
$(CORE): $(CORE_OBJ) $(filter-out %/lua_host.o,$(LUA_OBJ))
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_CFLAGS) -Wl,-z,nodelete -Wl,-Bsymbolic \
		$(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libbufpool.a: $(CORE_OBJ)
$(BUILD)/libbufpool_lua.a: $(LUA_OBJ)
$(ARCHIVES):
	@rm -f $@
	$(AR) rcs $@ $^

# C programs of spec/ and examples/, with both libraries inside.
$(SPECS) $(BUILD)/examples/host: $(BUILD)/%: %.c $(ARCHIVES)
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< \
		$(BUILD)/libbufpool_lua.a $(BUILD)/libbufpool.a \
		-Wl,--as-needed $(if $(filter spec/%,$<),-lcmocka) \
		$(LUA_LIBS) -lm $(LIBS)

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

# As C strings: what LuaJIT is to parse, and the Lua files themselves.
QUOTE = s/[\\"?]/\\&/g; s/.*/"&\\n"/
MARKED = /^\/\* ffi: begin \*\/$$/,/^\/\* ffi: end \*\/$$/

$(BUILD)/cdef.h: src/buf.h src/lua_box.h Makefile
	@mkdir -p $(@D)
	@set -e; { echo 'static const char bufpool_cdef[] ='; \
	sed -n '$(MARKED){ //d; s/_Atomic //g; $(QUOTE); p; }' \
		src/buf.h src/lua_box.h; \
	echo ';'; } >$@

# The directory itself is listed so that a file removed is noticed.
$(BUILD)/lua_sources.h: $(LUA_SRC) lua/bufpool Makefile
	@mkdir -p $(@D)
	@set -e; { echo 'static const struct lua_source { const char *name, *text; }'; \
	echo 'lua_sources[] = {'; \
	for f in $(LUA_SRC); do \
		name=$$(echo "$$f" | \
			sed 's|^lua/||; s|\.lua$$||; s|/init$$||; s|/|.|g'); \
		echo "{ \"$$name\", \"\""; sed '$(QUOTE)' "$$f"; echo '},'; \
	done; echo '};'; } >$@

-include $(wildcard $(BUILD)/*.d $(BUILD)/*/*.d)
