-- The main job, on a small tree of awkward files.
local helper = require "support.helper"

local quote, shell = helper.quote, helper.shell

local function write(name, text)
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
end

describe("examples/digest.lua", function()
    local dir

    local function digest(words)
        return shell(helper.interpreter() .. " "
            .. quote(helper.root .. "examples/digest.lua") .. " " .. words)
    end

    local function row(output, label)
        return output:match("\n%s*" .. label .. "%s+([^\n]*)")
    end

    setup(function()
        dir = os.tmpname()
        os.remove(dir)
        assert.equal(0, select(2, shell("mkdir -p " .. quote(dir .. "/sub/-d")
            .. " && ln -s /usr/share " .. quote(dir .. "/link")
            .. " && mkfifo " .. quote(dir .. "/fifo"))))
        local large = {}
        for i = 1, 120000 do
            large[i] = "line " .. i
        end
        large = table.concat(large, "\n")
        assert(#large > 1048576)
        write(dir .. "/large", large)
        write(dir .. "/sub/large again", large)
        write(dir .. "/large but for its last byte", large:sub(1, -2) .. "x")
        write(dir .. "/empty", "")
        write(dir .. "/sub/empty too", "")
        write(dir .. "/odd 'name'\n\\ \"\255", "abc")
        write(dir .. "/-n", "abc")
        write(dir .. "/sub/-d/three", "abc")
        write(dir .. "/page", ("x"):rep(4096))
        write(dir .. "/chunk", ("x"):rep(262144))
        write(dir .. "/chunk and one", ("x"):rep(262145))
        shell("ln " .. quote(dir .. "/page") .. " " .. quote(dir .. "/linked"))
    end)

    teardown(function()
        shell("chmod -R u+rwx " .. quote(dir) .. "; rm -r " .. quote(dir))
    end)

    for _, mode in ipairs { "", "--strings" } do
        it("agrees with sha256sum on every file " .. mode, function()
            local output, status = digest(mode .. " --check " .. quote(dir))
            assert.equal(0, status, output)
            assert.equal("12", row(output, "files"))
            assert.equal("12", row(output, "sha256sum agrees on"))
            assert.equal("0", row(output, "sha256sum differs on"))
            assert.equal("0", row(output, "unreadable"))
            assert.equal("2", row(output, "of them empty"))
        end)

        it("finds the duplicates, but no hard links and nothing empty "
            .. mode, function()
            local output = digest(mode .. " " .. quote(dir))
            assert.equal("2", row(output, "duplicate sets"))
            assert.equal("3", row(output, "redundant files"))
            local wasted = row(output, "bytes wasted"):gsub(",", "")
            local file = io.open(dir .. "/large")
            assert.equal(6 + file:seek "end", tonumber(wasted))
            file:close()
        end)
    end

    it("says how often the pool had a buffer ready", function()
        assert.matches("^%d+%.%d+ %%$",
            row(digest(quote(dir)), "pool hit rate"))
    end)

    it("compares both ways side by side", function()
        local output, status = digest("--compare --check " .. quote(dir))
        assert.equal(0, status, output)
        assert.matches("strings%s+pooled", output)
        assert.matches("^12%s+12$", row(output, "files"))
        assert.matches("^12%s+12$", row(output, "sha256sum agrees on"))
        assert.matches("^%d+%.%d MB%s+%d+%.%d MB$",
            row(output, "peak resident memory"))
    end)

    it("fails when sha256sum differs", function()
        -- A sha256sum of our own, which is wrong about one file.
        local bin = dir .. ".bin"
        shell("mkdir " .. quote(bin))
        write(bin .. "/sha256sum", "#!/bin/sh\nPATH=${PATH#*:}\n"
            .. "sha256sum \"$@\" | sed -z '1s/^..../beef/'\n")
        shell("chmod +x " .. quote(bin .. "/sha256sum"))
        local output, status = shell("PATH=" .. quote(bin) .. ":$PATH "
            .. helper.interpreter() .. " "
            .. quote(helper.root .. "examples/digest.lua")
            .. " --check " .. quote(dir))
        shell("rm -r " .. quote(bin))
        assert.equal(1, status, output)
        assert.equal("11", row(output, "sha256sum agrees on"))
        assert.equal("1", row(output, "sha256sum differs on"))
        assert.matches("sha256sum does not agree", output)
    end)

    it("shows no progress in a pipe", function()
        local output = digest(quote(dir))
        assert.is_nil(output:find("\r", 1, true))
        assert.is_nil(output:find("\27", 1, true))
    end)

    it("reports what it cannot read, counts it and goes on", function()
        local caps = "-dac_override,-dac_read_search"
        -- Without these capabilities root may not read everything.
        local drop = shell "id -u" == "0\n" and "setpriv --bounding-set="
            .. caps .. " --inh-caps=" .. caps .. " " or ""
        local closed = { dir .. "/large", dir .. "/sub/-d" }
        shell("chmod 000 " .. quote(closed[1]) .. " " .. quote(closed[2]))
        local allowed = shell(drop .. "cat " .. quote(closed[1])
            .. " >/dev/null && echo yes")
        if allowed == "yes\n" then
            pending "this user may read everything"
            return
        end
        local output, status = shell(drop .. helper.interpreter() .. " "
            .. quote(helper.root .. "examples/digest.lua") .. " --check "
            .. quote(dir))
        shell("chmod 700 " .. quote(closed[1]) .. " " .. quote(closed[2]))
        assert.equal(0, status, output)
        assert.matches("digest: [^\n]*/large: Permission denied", output)
        assert.matches("digest: [^\n]*/%-d: ", output)
        assert.equal("2", row(output, "unreadable"))
        assert.equal("10", row(output, "files"))
        assert.equal("10", row(output, "sha256sum agrees on"))
    end)

    it("ends with a message on a directory that is not there", function()
        local output, status = digest(quote(dir .. "/none"))
        assert.equal(2, status)
        assert.matches("No such file", output)
        assert.equal(2, select(2, digest "--nonsense"))
        assert.equal(2, select(2, digest "/usr /bin"))
    end)
end)
