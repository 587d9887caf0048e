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
            .. " && ln -s .. " .. quote(dir .. "/sub/loop")
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
        write(dir .. "/odd 'name'\n\\ \"\255\195\169\192\175", "abc")
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

    it("agrees with sha256sum on every file", function()
        local output, status = digest("--check " .. quote(dir))
        assert.equal(0, status, output)
        assert.equal("12", row(output, "files"))
        assert.equal("12", row(output, "sha256sum agrees on"))
        assert.equal("0", row(output, "sha256sum differs on"))
        assert.equal("0", row(output, "unreadable"))
        assert.equal("2", row(output, "of them empty"))
    end)

    it("finds the duplicates, but no hard links and nothing empty", function()
        local output = digest(quote(dir))
        assert.equal("2", row(output, "duplicate sets"))
        assert.equal("3", row(output, "redundant files"))
        local wasted = row(output, "bytes wasted"):gsub(",", "")
        local file = io.open(dir .. "/large")
        assert.equal(6 + file:seek "end", tonumber(wasted))
        file:close()
    end)

    it("compares both ways side by side", function()
        local output, status = digest("--compare --check " .. quote(dir))
        assert.equal(0, status, output)
        assert.matches("strings%s+buffers", output)
        assert.matches("^12%s+12$", row(output, "files"))
        assert.matches("^2%s+2$", row(output, "duplicate sets"))
        assert.matches("^12%s+12$", row(output, "sha256sum agrees on"))
        assert.matches("^%d+%.%d MB%s+%d+%.%d MB$",
            row(output, "peak resident memory"))
    end)

    it("does the same with Lua strings", function()
        local output, status = digest("--strings --check " .. quote(dir))
        assert.equal(0, status, output)
        assert.equal("2", row(output, "duplicate sets"))
        assert.equal("12", row(output, "sha256sum agrees on"))
    end)

    it("says how often the pool had a buffer ready", function()
        assert.matches("^%d+%.%d+ %%$",
            row(digest(quote(dir)), "pool hit rate"))
    end)

    -- Digests with a tool of our own, whose shell script is given.
    local function digest_with(tool, script, words)
        local bin = dir .. ".bin"
        shell("mkdir " .. quote(bin))
        write(bin .. "/" .. tool, "#!/bin/sh\nPATH=${PATH#*:}\n" .. script)
        shell("chmod +x " .. quote(bin .. "/" .. tool))
        local output, status = shell("PATH=" .. quote(bin) .. ":$PATH "
            .. helper.interpreter() .. " "
            .. quote(helper.root .. "examples/digest.lua") .. " " .. words)
        shell("rm -r " .. quote(bin))
        return output, status
    end

    it("fails when sha256sum differs", function()
        local output, status = digest_with("sha256sum",
            "sha256sum \"$@\" | sed -z '1s/^..../beef/'\n",
            "--check " .. quote(dir))
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
        assert.matches("find: [^\n]*/%-d", output)
        assert.equal("1", row(output, "unreadable"))
        assert.equal("10", row(output, "files"))
        assert.equal("10", row(output, "sha256sum agrees on"))
    end)

    it("skips links and special files, and counts them", function()
        local output = digest(quote(dir))
        assert.equal("3", row(output, "skipped"))
        assert.equal("2", row(output, "symbolic links"))
        assert.equal("1", row(output, "special files"))
        output = digest(quote(dir .. "/fifo"))
        assert.equal("0", row(output, "files"))
        assert.equal("1", row(output, "special files"))
    end)

    it("ends when a file does not", function()
        -- find says that /dev/zero is a file of 5 bytes.
        local output, status = digest_with("find",
            "printf 'd 0 1 1 .\\0f 5 1 2 /dev/zero\\0'\n",
            quote(dir))
        assert.equal(0, status, output)
        assert.equal("0", row(output, "files"))
        assert.equal("1", row(output, "changed meanwhile"))
        assert.matches("digest: /dev/zero: longer than when", output)
    end)

    it("skips what is shorter than it was", function()
        local output, status = digest_with("find",
            "find \"$@\" | sed -z 's/^f 4096 /f 4097 /'\n",
            "--check " .. quote(dir))
        assert.equal(0, status, output)
        assert.equal("10", row(output, "sha256sum agrees on"))
        assert.equal("2", row(output, "changed meanwhile"))
        assert.matches("/page: shorter than when", output)
    end)

    it("lists the ten largest sets, and all with --all", function()
        local many = dir .. ".sets"
        shell("mkdir " .. quote(many))
        for i = 1, 11 do
            for k = 1, i == 11 and 12 or 2 do
                write(("%s/%d,%d"):format(many, i, k), ("x"):rep(100 * i))
            end
        end
        local output = digest(quote(many))
        assert.matches("\nThe 10 largest of 11 sets", output)
        assert.matches("\n  12,100 bytes wasted by 12 files of 1,100 bytes\n",
            output)
        assert.matches("\n    and 2 more\n  1,000 bytes wasted by 2 files "
            .. "of 1,000 bytes\n    [^\n]*/10,[12]\n    [^\n]*/10,[12]\n"
            .. "  900 bytes", output)
        assert.falsy(output:find("/1,1\n", 1, true))
        output = digest("--all " .. quote(many))
        assert.truthy(output:find("/1,1\n", 1, true))
        assert.falsy(output:find("more\n", 1, true))
        local _, names = output:gsub("\n    /", "")
        assert.equal(32, names)
        shell("rm -r " .. quote(many))
    end)

    it("prints names without what a terminal would obey", function()
        assert.truthy(digest(quote(dir)):find("/odd 'name'\\010\\ \"\255"
            .. "\195\169\192\175\n", 1, true))
    end)

    it("draws a bar that fits the line", function()
        local progress = dofile(helper.root .. "examples/digest_progress.lua")
        local phase = progress.phase("read", 1000, 3e9)
        assert.matches("^read %[%.+%]   0 %%", phase:line())
        phase.files, phase.bytes = 500, 1.5e9
        phase.began = phase.began - 30
        local line = phase:line()
        assert.matches("^read %[#+%.+%]  50 %%  50%.0 MB/s  0:30 left  "
            .. "500 of 1,000 files$", line)
        assert.is_true(#line < 80)
        phase = progress.phase "find"
        phase.files = 1234
        assert.equal("find  1,234 files, 0.0 MB", phase:line())
    end)

    it("says what each phase did, in plain lines", function()
        local output = digest("--check " .. quote(dir))
        for _, title in ipairs {
            "find", "read and hash", "compare", "check with sha256sum",
        } do
            assert.matches("digest: " .. title .. ": %d+ files, ", output)
        end
    end)

    it("takes a directory that looks like an option", function()
        local output, status = shell("cd " .. quote(helper.root)
            .. " && root=$PWD && cd " .. quote(dir .. "/sub") .. " && "
            .. helper.interpreter() .. " \"$root/examples/digest.lua\" -- -d")
        assert.equal(0, status, output)
        assert.equal("1", row(output, "files"))
    end)

    it("runs by make demo, whatever DIR holds", function()
        local odd = dir .. " it's"
        shell("mkdir " .. quote(odd) .. " && touch " .. quote(odd .. "/a"))
        local output, status = shell("cd " .. quote(helper.root)
            .. " && env -u MAKEFLAGS -u MAKELEVEL -u BUILD make demo DEPS=: "
            .. "DIR=" .. quote(odd))
        shell("rm -r " .. quote(odd))
        assert.equal(0, status, output)
        assert.equal("1", row(output, "sha256sum agrees on"))
    end)

    it("explains itself with --help", function()
        local output, status = digest "--help"
        assert.equal(0, status)
        for _, option in ipairs { "check", "all" } do
            assert.matches("\n  %-%-" .. option .. " ", output)
        end
    end)

    it("ends with a message on a directory that is not there", function()
        local output, status = digest(quote(dir .. "/none"))
        assert.equal(2, status)
        assert.matches("No such file", output)
        assert.equal(2, select(2, digest "--nonsense"))
        assert.equal(2, select(2, digest "/usr /bin"))
    end)
end)
