local bufpool = require "bufpool"
local ffi = require "ffi"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf
local pool = bufpool.new()
local C = ffi.C

ffi.cdef [[
int pipe(int *);
int close(int);
ssize_t write(int, const void *, size_t);
ssize_t read(int, void *, size_t);
int fcntl(int, int, ...);
int open(const char *, int, ...);
]]

local EBADF, EAGAIN, EISDIR = 9, 11, 21
local F_SETFL, O_NONBLOCK = 4, 2048

local function new_pipe()
    local fds = ffi.new "int[2]"
    assert(C.pipe(fds) == 0)
    return fds[0], fds[1]
end

local function feed(fd, text)
    assert(C.write(fd, text, #text) == #text)
end

-- What is waiting in a pipe.
local function drain(fd, n)
    local space = ffi.new("uint8_t[?]", n)
    local got = C.read(fd, space, n)
    assert(got >= 0)
    return ffi.string(space, got)
end

-- A file of these contents, open for reading.
local function file_of(text)
    local file = io.tmpfile()
    file:write(text)
    file:seek "set"
    return file
end

describe("readfrom a file", function()
    it("appends up to n bytes, then 0 at the end", function()
        local file = file_of "0123456789"
        local w = pool:writer():put ">"
        assert.equal(4, w:readfrom(file, 4))
        assert.equal(">0123", tostring(w))
        assert.equal(6, w:readfrom(file, 100))
        assert.equal(0, w:readfrom(file, 100))
        assert.equal(0, w:readfrom(file))
        assert.equal(">0123456789", tostring(w))
        file:close()
    end)

    it("fills the free capacity by default", function()
        local text = ("abcdefg"):rep(20000)
        local file = file_of(text)
        local w = pool:writer(65536)
        local free = w:capacity()
        assert.equal(free, w:readfrom(file))
        assert.equal(text:sub(1, free), tostring(w))
        file:close()
    end)

    it("reads at least 4096 bytes by default, growing for it", function()
        local file = file_of(("x"):rep(100000))
        local buf = pool:checkout(4096)
        assert.is_true(buf:readfrom(file) >= 4096)
        assert.equal(helper.zeros(4096) .. "x", buf:sub(1, 4097))
        file:close()
    end)

    -- Bytes that reading all of the file has release wipe; by itself, a writer
    -- grows through buffers that are wiped, too. The pool is one of its own,
    -- because the collector may wipe what earlier specs left at any moment.
    local function wiped(from, text, hint)
        local own = bufpool.new()
        local w = own:writer(hint)
        while assert(w:readfrom(from)) > 0 do end
        assert.is_true(w:equals(text))
        w:release()
        local bytes = own:stats().wiped_bytes
        own:close()
        return bytes
    end

    it("asks a file for little more than it has", function()
        local text = ("abcdefg"):rep(40000)
        local file = file_of(text)
        assert.is_true(wiped(file, text, 1048576) <= #text + 4096)
        file:seek("set", 200000)
        assert.is_true(wiped(file, text:sub(200001), 1048576) <= 84096)
        file:seek("set", 300000)
        assert.is_true(wiped(file, "", 1048576) <= 4096)
        file:close()
    end)

    it("asks a file for little more than it has when Lua has read of it",
        function()
            local text = ("abcdefg"):rep(40000)
            local file = file_of(text)
            assert.equal("a", file:read(1))
            assert.is_true(wiped(file, text:sub(2), 1048576) <= #text + 4096)
            file:close()
        end)

    it("asks a descriptor for little more than the file has", function()
        local text = ("abcdefg"):rep(40000)
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write(text)
        file:close()
        local fd = C.open(path, 0)
        os.remove(path)
        assert.is_true(wiped(fd, text, 1048576) <= #text + 4096)
        C.close(fd)
    end)

    it("reads on in a file that has grown since", function()
        local path = os.tmpname()
        local more = assert(io.open(path, "w"))
        local file = assert(io.open(path))
        os.remove(path)
        local w = pool:writer(1048576)
        for i = 1, 3 do
            assert.equal(0, w:readfrom(file))
            assert.is_true(w:equals(("x"):rep(100000 * (i - 1))))
            more:write(("x"):rep(100000))
            more:flush()
            assert.equal(100000, w:readfrom(file))
        end
        w:reset()
        for _ = 1, 3 do         -- few bytes come by the C library's buffer
            assert.equal(0, w:readfrom(file, 10))
            more:write "abc"
            more:flush()
            assert.equal(3, w:readfrom(file, 10))
        end
        assert.equal("abcabcabc", tostring(w))
        file:close()
        more:close()
    end)

    it("fills the free capacity from what does not know its size", function()
        for _, file in ipairs { io.popen "head -c 300000 /dev/zero",
            assert(io.open "/dev/zero"), assert(io.open "/proc/kallsyms") } do
            local w = pool:writer(200000)
            assert.equal(w:capacity(), w:readfrom(file))
            file:close()
        end
    end)

    it("mixes with what Lua reads from the file", function()
        local file = file_of "line\nrest"
        assert.equal("line", file:read "*l")
        local w = pool:writer()
        assert.equal(2, w:readfrom(file, 2))
        assert.equal("s", file:read(1))
        assert.equal("re", tostring(w))
        file:close()
    end)

    it("reads a whole file in a loop", function()
        local text = {}
        for i = 1, 30000 do
            text[i] = "line " .. i .. "\n"
        end
        text = table.concat(text)
        local file = file_of(text)
        local w = pool:writer()
        while assert(w:readfrom(file)) > 0 do end
        assert.is_true(w:equals(text))
        file:close()
        w:release()
    end)

    it("reads nothing when n is 0", function()
        local file = file_of "abc"
        local w = pool:writer()
        assert.equal(0, w:readfrom(file, 0))
        assert.equal("abc", file:read "*a")
        file:close()
    end)

    it("returns nil, a message and errno when reading fails", function()
        local file = assert(io.open "/")
        local w = pool:writer():put "abc"
        local n, message, errno = w:readfrom(file, 10)
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EISDIR, errno)
        assert.equal("abc", tostring(w))
        file:close()
    end)

    it("raises on a closed file", function()
        local file = file_of "abc"
        file:close()
        local buf = pool:checkout(4)
        raises(function() buf:readfrom(file, 1) end, "#1", "'readfrom'",
            "closed")
        raises(function() buf:readinto(1, file) end, "#2", "'readinto'",
            "closed")
        raises(function() buf:writeto(file) end, "#1", "'writeto'", "closed")
        raises(function() buf:freeze():writeto(file) end, "'writeto'")
    end)
end)

describe("readfrom a descriptor", function()
    local from, to
    before_each(function() from, to = new_pipe() end)
    after_each(function()
        C.close(from)
        if to then C.close(to) end
    end)

    it("takes what one read gives", function()
        feed(to, "hello")
        local w = pool:writer()
        assert.equal(5, w:readfrom(from, 100))
        assert.equal("hello", tostring(w))
        feed(to, " world")
        assert.equal(3, w:readfrom(from, 3))
        assert.equal("hello wo", tostring(w))
    end)

    it("takes the descriptor as a cdata integer", function()
        feed(to, "hello")
        local w = pool:writer()
        assert.equal(5, w:readfrom(ffi.new("int64_t", from), 100LL))
        assert.equal("hello", tostring(w))
    end)

    it("returns 0 at the end", function()
        C.close(to)
        to = nil
        assert.equal(0, pool:writer():readfrom(from, 10))
    end)

    it("returns nil, a message and EAGAIN when nothing is there", function()
        C.fcntl(from, F_SETFL, ffi.new("int", O_NONBLOCK))
        local w = pool:writer():put "abc"
        local n, message, errno = w:readfrom(from, 10)
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EAGAIN, errno)
        assert.equal("abc", tostring(w))
        feed(to, "d")
        assert.equal(1, w:readfrom(from, 10))
        assert.equal("abcd", tostring(w))
    end)

    it("returns nil, a message and EBADF when it is not open", function()
        local w = pool:writer():put "abc"
        local n, message, errno = w:readfrom(987654, 10)
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EBADF, errno)
        assert.equal("abc", tostring(w))
    end)
end)

describe("readinto", function()
    it("overwrites from a position to the end by default", function()
        local file = file_of "abcdefghij"
        local buf = pool:checkout(6)
        assert.equal(4, buf:readinto(3, file))
        assert.equal("\0\0abcd", tostring(buf))
        assert.equal(6, buf:readinto(1, file))
        assert.equal("efghij", tostring(buf))
        assert.equal(0, buf:readinto(1, file))
        file:close()
    end)

    it("overwrites n bytes at most", function()
        local file = file_of "abcdefghij"
        local buf = pool:checkout(6)
        assert.equal(2, buf:readinto(2, file, 2))
        assert.equal("\0ab\0\0\0", tostring(buf))
        assert.equal(1, buf:readinto(-1, file))
        assert.equal("\0ab\0\0c", tostring(buf))
        assert.equal(1, buf:readinto(6LL, file, 1ULL))
        assert.equal("\0ab\0\0d", tostring(buf))
        file:close()
    end)

    it("keeps the length when the file is short", function()
        local file = file_of "ab"
        local buf = pool:checkout(6)
        assert.equal(2, buf:readinto(1, file))
        assert.equal("ab\0\0\0\0", tostring(buf))
        file:close()
    end)

    it("reads from a descriptor", function()
        local from, to = new_pipe()
        feed(to, "abc")
        local buf = pool:checkout(8)
        assert.equal(3, buf:readinto(5, from))
        assert.equal("\0\0\0\0abc\0", tostring(buf))
        C.close(to)
        assert.equal(0, buf:readinto(1, from))
        C.close(from)
        local n, message, errno = buf:readinto(1, 987654)
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EBADF, errno)
    end)

    it("never grows", function()
        local file = file_of(("x"):rep(100))
        local buf = pool:checkout(4)
        raises(function() buf:readinto(6, file) end, "#1", "'readinto'")
        raises(function() buf:readinto(0, file) end, "#1", "'readinto'")
        raises(function() buf:readinto(-5, file) end, "#1", "'readinto'")
        pcall(buf.readinto, buf, 1, file, 5)
        assert.equal(4, #buf)
        assert.equal(0, buf:readinto(5, file))
        file:close()
    end)

    it("reads as in the middle of a pipe into the middle of a buffer",
        function()
            local from, to = new_pipe()
            local buf = pool:checkout(10)
            feed(to, "0123456789")
            assert.equal(3, buf:readinto(4, from, 3))
            assert.equal(2, buf:readinto(1, from, 2))
            assert.equal("34\000012\0\0\0\0", tostring(buf))
            C.close(from)
            C.close(to)
        end)
end)

describe("writeto", function()
    for kind, make in pairs {
        buffer = function(text) return pool:writer():put(text) end,
        frozen = function(text) return pool:writer():put(text):freeze() end,
    } do
        it("writes a range to a file (" .. kind .. ")", function()
            local file = io.tmpfile()
            local x = make "hello"
            assert.equal(5, x:writeto(file))
            assert.equal(3, x:writeto(file, 2, -2))
            assert.equal(2, x:writeto(file, 4LL))
            assert.equal(0, x:writeto(file, 4, 3))
            assert.equal(5, x:writeto(file, -99, 99))
            assert.equal("hello", tostring(x))
            file:seek "set"
            assert.equal("helloelllohello", file:read "*a")
            file:close()
        end)

        it("writes to a descriptor (" .. kind .. ")", function()
            local from, to = new_pipe()
            assert.equal(5, make "hello":writeto(to))
            assert.equal(2, make "hello":writeto(to, 1, 2))
            assert.equal("hellohe", drain(from, 100))
            C.close(from)
            C.close(to)
        end)
    end

    it("keeps the order with what Lua writes to the file", function()
        local file = io.tmpfile()
        file:write "a"
        pool:writer():put "b":writeto(file)
        file:write "c"
        file:seek "set"
        assert.equal("abc", file:read "*a")
        file:close()
    end)

    it("writes short to a descriptor that takes no more", function()
        local from, to = new_pipe()
        C.fcntl(to, F_SETFL, ffi.new("int", O_NONBLOCK))
        local size = 4194304 -- a pipe takes 16 pages of at most 64 KiB
        local buf = pool:checkout(size):fill(120)
        local n = assert(buf:writeto(to))
        assert.is_true(n > 0 and n < size)
        local none, message, errno = buf:writeto(to)
        assert.is_nil(none)
        assert.is_string(message)
        assert.equal(EAGAIN, errno)
        C.close(from)
        C.close(to)
    end)

    it("returns nil, a message and errno when writing fails", function()
        local n, message, errno = pool:writer():put "x":writeto(987654)
        assert.is_nil(n)
        assert.is_string(message)
        assert.equal(EBADF, errno)
        local file = assert(io.open("/dev/null", "r"))
        n, message = pool:writer():put(("x"):rep(100000)):writeto(file)
        assert.is_nil(n)
        assert.is_string(message)
        file:close()
    end)
end)

describe("every input and output", function()
    it("raises on what is neither file nor descriptor", function()
        local buf = pool:checkout(4)
        for _, x in ipairs {
            -1, 0.5, nan, inf, 2 ^ 40, -1LL, "0", "x", {}, true, print, pool,
            newproxy(true), helper.forged "FILE*",
        } do
            raises(function() buf:readfrom(x, 1) end, "#1", "'readfrom'")
            raises(function() buf:readinto(1, x) end, "#2", "'readinto'")
            raises(function() buf:writeto(x) end, "#1", "'writeto'")
        end
        raises(function() buf:readfrom() end, "#1", "'readfrom'")
        raises(function() buf:readinto(1) end, "#2", "'readinto'")
        raises(function() buf:writeto() end, "#1", "'writeto'")
        assert.equal(helper.zeros(4), tostring(buf))
    end)

    it("raises on counts and positions that are none", function()
        local file = file_of "abcdef"
        local buf = pool:checkout(4)
        for _, n in ipairs { -1, 0.5, nan, inf, -inf, 1e300, "1", {}, true } do
            raises(function() buf:readfrom(file, n) end, "#2", "'readfrom'")
            raises(function() buf:readinto(1, file, n) end, "#3",
                "'readinto'")
            raises(function() buf:readinto(n == -1 and -9 or n, file) end,
                "#1", "'readinto'")
        end
        for _, i in ipairs { 0.5, nan, "1", {}, true } do
            raises(function() buf:writeto(file, i) end, "#2", "'writeto'")
            raises(function() buf:writeto(file, 1, i) end, "#3", "'writeto'")
        end
        assert.equal(helper.zeros(4), tostring(buf))
        assert.equal("abcdef", file:read "*a")
        file:close()
    end)
end)
