local bufpool = require "bufpool"
local helper = require "support.helper"

local raises = helper.raises
local nan, inf = helper.nan, helper.inf

-- Above the largest class: whole pages, at most twice as many as needed.
local function holds_large(buf, n)
    local capacity, pages = buf:capacity(), math.ceil(n / 4096) * 4096
    return capacity >= n and capacity <= 2 * pages and capacity % 4096 == 0
end

local function sizes_of(pool)
    local sizes, counts = {}, {}
    for i, class in ipairs(pool:stats().classes) do
        sizes[i], counts[i] = class.size, class.ready + class.cached
    end
    return sizes, counts
end

describe("classes", function()
    it("are the pool's own, whatever their order", function()
        local pool = bufpool.new {
            classes = {
                { size = 1048576 }, { size = 8192, count = 3 },
                { size = 20480LL, count = 1ULL },
            },
        }
        local sizes, counts = sizes_of(pool)
        assert.same({ 8192, 20480, 1048576 }, sizes)
        assert.same({ 3, 1, 0 }, counts)
        assert.equal(3 * 8192 + 20480, pool:stats().committed_bytes)
    end)

    it("hold what fits them", function()
        local pool = bufpool.new {
            classes = { { size = 20480, count = 1 }, { size = 8192 } },
        }
        for _, case in ipairs {
            { 0, 8192 }, { 1, 8192 }, { 8192, 8192 }, { 8193, 20480 },
            { 20480, 20480 }, { 20481 }, { 3000000 }, { 2000000 },
        } do
            local buf = assert(pool:checkout(case[1]))
            if case[2] then
                assert.equal(case[2], buf:capacity())
            else
                assert.is_true(holds_large(buf, case[1]))
            end
            assert.equal(helper.zeros(case[1]), tostring(buf))
            buf:fill(1)
            buf:release()
        end
        assert.equal(0, pool:stats().checked_out)
    end)

    it("hold what an oracle says, for any of them", function()
        local seed = helper.seed()
        for _ = 1, 50 do
            local classes, seen = {}, {}
            for _ = 1, math.random(16) do
                local size = 4096 * math.random(2 ^ math.random(0, 9))
                if not seen[size] then
                    classes[#classes + 1] = { size = size }
                    seen[size] = true
                end
            end
            local pool = bufpool.new { classes = classes }
            for _ = 1, 50 do
                local n = math.random(0, 2 ^ math.random(22))
                local want = inf
                for _, class in ipairs(classes) do
                    if class.size >= n and class.size < want then
                        want = class.size
                    end
                end
                local buf = assert(pool:checkout(n))
                local where = ("seed %d, %d bytes"):format(seed, n)
                if want < inf then
                    assert.equal(want, buf:capacity(), where)
                else
                    assert.is_true(holds_large(buf, n), where)
                end
                buf:release()
            end
            pool:close()
        end
    end)

    it("may be one, and sixteen", function()
        local one = bufpool.new { classes = { { size = 4096, count = 5 } } }
        assert.same({ 4096 }, (sizes_of(one)))
        assert.is_true(holds_large(one:checkout(5000), 5000))
        local classes = {}
        for i = 1, 16 do
            classes[i] = { size = 4096 * (17 - i), count = i }
        end
        local sizes, counts = sizes_of(bufpool.new { classes = classes })
        for i = 1, 16 do
            assert.equal(4096 * i, sizes[i])
            assert.equal(17 - i, counts[i])
        end
    end)

    it("are trimmed to their own counts", function()
        local pool = bufpool.new {
            classes = { { size = 8192, count = 2 }, { size = 16384 } },
        }
        local held = {}
        for i = 1, 30 do
            held[i] = pool:checkout(i % 2 == 0 and 8192 or 16384)
        end
        for i = 1, 30 do
            held[i]:release()
        end
        pool:trim()
        local _, counts = sizes_of(pool)
        assert.same({ 2, 0 }, counts)
    end)

    it("leave the table that they are given in alone", function()
        local classes = { { size = 8192 }, { size = 4096, count = 1 } }
        bufpool.new { classes = classes }
        assert.same({ { size = 8192 }, { size = 4096, count = 1 } }, classes)
    end)

    it("serve writers, handles and growth", function()
        local pool = bufpool.new {
            classes = { { size = 8192 }, { size = 4096 } },
        }
        local w = pool:writer()
        w:put(("x"):rep(4096))
        assert.equal(4096, w:capacity())
        w:put "y"
        assert.equal(8192, w:capacity())
        w:put(("z"):rep(10000))
        assert.equal(("x"):rep(4096) .. "y" .. ("z"):rep(10000), tostring(w))
        local handle = pool:borrow(4097)
        assert.equal(8192, handle:capacity())
        handle:release()
    end)
end)

describe("bufpool.new raises, naming what is wrong,", function()
    it("for classes that are no list of tables", function()
        for _, value in ipairs { 1, "x", true, print, io.stdout } do
            raises(function() bufpool.new { classes = value } end,
                "'new'", "'classes'")
        end
        for _, value in ipairs { 1, "x", true, print } do
            raises(function()
                bufpool.new { classes = { { size = 4096 }, value } }
            end, "'new'", "classes[2]")
        end
    end)

    it("for none, too many, and lists with holes", function()
        raises(function() bufpool.new { classes = {} } end, "'classes'", "16")
        local classes = {}
        for i = 1, 17 do
            classes[i] = { size = 4096 * i }
        end
        raises(function()
            bufpool.new { classes = classes }
        end, "'classes'", "16", "17")
        raises(function()
            bufpool.new { classes = { [1] = { size = 4096 },
                [3] = { size = 8192 } } }
        end, "'classes'")
        raises(function()
            bufpool.new { classes = { { size = 4096 }, size = 8192 } }
        end, "'classes'")
        raises(function()
            bufpool.new { classes = { size = 8192, count = 1 } }
        end, "'classes'")
    end)

    it("for sizes that are none", function()
        for _, size in ipairs {
            0, 1, 4095, 4097, 6000, -4096, 4096.5, nan, inf, -inf, 1e300,
            2 ^ 41, "4096", true, {}, print, -4096LL, 0xfffffffffffff000ULL,
        } do
            raises(function()
                bufpool.new { classes = { { size = 8192 }, { size = size } } }
            end, "'new'", "classes[2].size")
        end
        raises(function()
            bufpool.new { classes = { { count = 1 } } }
        end, "'new'", "classes[1].size")
    end)

    it("for counts that are none", function()
        for _, count in ipairs {
            -1, 0.5, nan, inf, -inf, 2 ^ 21, "1", true, {}, -1LL,
        } do
            raises(function()
                bufpool.new { classes = { { size = 8192, count = count } } }
            end, "'new'", "classes[1].count")
        end
    end)

    it("for counts of the four that no pool may have", function()
        for _, key in ipairs { "four_kib_count", "sixty_four_kib_count",
            "two_fifty_six_kib_count", "one_mib_count" } do
            for _, count in ipairs { 2 ^ 20 + 1, 2 ^ 31, 2 ^ 53, 2 ^ 62 } do
                raises(function() bufpool.new { [key] = count } end,
                    "'" .. key .. "'", "integer from 0 to 1048576")
            end
        end
    end)

    it("for a size that is there twice, saying where", function()
        raises(function()
            bufpool.new {
                classes = {
                    { size = 4096 }, { size = 8192 }, { size = 8192LL },
                },
            }
        end, "'new'", "classes[3].size", "classes[2]", "8192")
    end)

    it("for keys that a class has not", function()
        raises(function()
            bufpool.new { classes = { { size = 4096, cuont = 1 } } }
        end, "'new'", "cuont", "classes[1]")
        raises(function()
            bufpool.new { classes = { { 4096, 1 } } }
        end, "'new'", "classes[1]")
    end)

    it("for classes beside the counts of the four", function()
        for _, key in ipairs {
            "four_kib_count", "sixty_four_kib_count",
            "two_fifty_six_kib_count", "one_mib_count",
        } do
            raises(function()
                bufpool.new { classes = { { size = 4096 } }, [key] = 1 }
            end, "'new'", "'classes'", key)
        end
    end)

    it("for prefault and huge_pages that are no booleans", function()
        for _, value in ipairs { 0, 1, "true", {}, print } do
            raises(function() bufpool.new { prefault = value } end,
                "'new'", "'prefault'", "boolean")
            raises(function() bufpool.new { huge_pages = value } end,
                "'new'", "'huge_pages'", "boolean")
        end
    end)

    it("for near misses of their names", function()
        raises(function()
            bufpool.new { clases = {} }
        end, "clases", "'classes'")
        raises(function()
            bufpool.new { prefualt = true }
        end, "prefualt", "'prefault'")
        raises(function()
            bufpool.new { hugepages = true }
        end, "hugepages", "'huge_pages'")
    end)

    it("for a name that other classes have", function()
        local name = "classes-spec"
        local function named(config)
            config.name = name
            return config
        end
        local pool = bufpool.new(named {
            classes = { { size = 4096, count = 1 }, { size = 8192 } },
        })
        -- The same, in another order.
        bufpool.new(named {
            classes = { { size = 8192 }, { size = 4096, count = 1 } },
        }):close()
        for _, classes in ipairs {
            { { size = 4096, count = 1 } },
            { { size = 4096, count = 1 }, { size = 12288 } },
            { { size = 4096, count = 2 }, { size = 8192 } },
            { { size = 4096, count = 1 }, { size = 8192 }, { size = 16384 } },
        } do
            raises(function()
                bufpool.new(named { classes = classes })
            end, "'classes'", name)
        end
        raises(function() bufpool.new(named {}) end, "'classes'", name)
        pool:close()
        pool = bufpool.new(named { prefault = true })
        raises(function() bufpool.new(named {}) end, "'prefault'", name)
        raises(function()
            bufpool.new(named { prefault = true, huge_pages = true })
        end, "'huge_pages'", name)
        pool:close()
    end)
end)

it("new returns nil and a message when max_bytes is below the classes' counts",
    function()
        local pool, message = bufpool.new {
            classes = { { size = 8192, count = 2 } }, max_bytes = 16383,
        }
        assert.is_nil(pool)
        assert.matches("max_bytes", message)
        pool = bufpool.new {
            classes = { { size = 8192, count = 2 } }, max_bytes = 16384,
        }
        assert.equal("pool", bufpool.type(pool))
    end)

-- Of the mapping that a buffer is in: KiB, and the flags, as the kernel says.
local function smaps(buf)
    local address = helper.address((buf:ref()))
    local inside, found = false, {}
    for line in io.lines "/proc/self/smaps" do
        local first, last = line:match "^(%x+)%-(%x+) "
        if first then
            inside = tonumber(first, 16) <= address
                and address < tonumber(last, 16)
        elseif inside then
            local key, value = line:match "^([%w_]+):%s*(.-)%s*$"
            found[key] = value
        end
    end
    return found
end

local function kib(text)
    return tonumber(text:match "%d+")
end

describe("prefault", function()
    -- A class of its own mapping, so that all of it is this one buffer.
    local function resident(prefault)
        local pool = bufpool.new {
            classes = { { size = 8388608 } }, prefault = prefault,
        }
        local buf = pool:checkout(8388608)
        local rss = kib(smaps(buf).Rss)
        assert.equal(8388608, pool:stats().committed_bytes)
        buf:release()
        pool:close() -- or the next mapping might become one with it
        return rss
    end

    it("has all pages there before anyone touches one", function()
        assert.is_true(resident(true) >= 8192)
        assert.is_true(resident(false) < 8192)
        assert.is_true(resident(nil) < 8192)
    end)
end)

describe("huge_pages", function()
    local allowed
    setup(function()
        local file = io.open "/sys/kernel/mm/transparent_hugepage/enabled"
        allowed = file and file:read "*a":match "%[(%w+)%]" or "unknown"
        if file then
            file:close()
        end
    end)

    local function flags(huge)
        local pool = bufpool.new { huge_pages = huge }
        local buf = pool:checkout(65536):fill(1)
        return " " .. (smaps(buf).VmFlags or "") .. " "
    end

    it("asks for them", function()
        if flags(nil) == "  " then
            pending "no VmFlags in /proc/self/smaps"
        end
        assert.is_truthy(flags(true):find(" hg ", 1, true))
        assert.is_nil(flags(false):find(" hg ", 1, true))
        assert.is_nil(flags(nil):find(" hg ", 1, true))
    end)

    it("gets some where the system has them", function()
        if allowed ~= "always" and allowed ~= "madvise" then
            pending("transparent huge pages: " .. allowed)
        end
        local pool = bufpool.new { huge_pages = true, prefault = true }
        local buf = pool:checkout(8388608)
        assert.is_true(kib(smaps(buf).AnonHugePages) > 0)
    end)
end)
