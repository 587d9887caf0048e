-- What bufpool.ngx prints passes through nginx's filters as what ngx.print
-- prints does: the same bytes and the same header, for all filters that Debian
-- packages. Those of mp4, flv and random_index answer with files, never with
-- what Lua prints.
local helper = require "support.helper"
local nginx = require "support.nginx"

local must, shell = nginx.must, helper.shell

-- The handler of all locations. Its arguments: `n`, how many bytes; `prints`,
-- in how many parts they are printed; `flush`, what is called in between;
-- `last`, a string that is printed with each part; `tell`, whether the results
-- of all calls are printed in the end.
local HANDLERS = [==[
local bufpool = require "bufpool"
local B = require "bufpool.ngx"
local pool = bufpool.new { name = "spec" }
local make = {}

local function repeated(n, start, piece)
    return (start .. piece:rep(n / #piece + 1)):sub(1, n)
end

local function mixture(from, to)
    local bytes, x = {}, 1
    for i = 1, 5003 do
        x = x * 16807 % 2147483647
        bytes[i] = string.char(from + x % (to - from + 1))
    end
    return table.concat(bytes)
end

function make.text(n)
    return repeated(n, "", "The 00 <b>words</b> of 1007 lines, 00.\n")
end

make.eight = (function()
    local high, all = mixture(128, 255), mixture(32, 255)
    return function(n)
        return repeated(n, high:sub(1, 9), ("a"):rep(700) .. all)
    end
end)()

make.letters = (function()
    local text = mixture(64, 127):gsub("[P-o]", function(c)
        return "\208" .. string.char(c:byte() + 64)
    end)
    return function(n)
        return repeated(n, "", text)
    end
end)()

function make.tags(n)
    return repeated(n, "<!--# set var='x' value='y' -->",
        "0123456<!--# echo var='x' --> <!--# if expr='$x = y' -->z"
        .. "<!--# endif -->\n" .. ("-"):rep(3000))
end

function make.includes(n)
    return repeated(n, "", ("-"):rep(3000)
        .. "<!--# include virtual='/part' -->")
end

-- A picture of two pixels with a long comment.
function make.picture(n)
    local start = "GIF89a\2\0\1\0\128\0\0\0\0\0\255\255\255!\254"
    local last = "\0,\0\0\0\0\2\0\1\0\0\2\2\4\10\0;"
    local comment = {}
    for _ = 1, (n - #start - #last) / 256 do
        comment[#comment + 1] = "\255" .. ("c"):rep(255)
    end
    return start .. table.concat(comment) .. last
end

function make.document(n)
    return "<?xml version='1.0'?><list>" .. ("<item>00</item>"):rep(n / 15)
        .. "</list>"
end

local function frozen(bytes)
    local w = pool:writer(#bytes):put(bytes)
    return w:freeze()
end

local kinds = {
    plain = { print = ngx.print, object = function(bytes) return bytes end },
    frozen = { print = B.print, object = frozen },
    buffer = { print = B.print, object = function(bytes)
        return (pool:writer(#bytes):put(bytes))
    end },
    sliced = { print = B.print, object = function(bytes)
        local whole = frozen("<" .. bytes .. ">")
        local slice = whole:slice(2, -2)
        whole:release()
        return slice
    end },
    -- By turns.
    mixed = { object = function(bytes) return bytes end },
}

local turn = 0
function kinds.mixed.print(...)
    turn = turn + 1
    if turn % 2 == 0 then
        return ngx.print(...)
    end
    local list = { ... }
    for i, bytes in ipairs(list) do
        list[i] = i % 2 == 1 and frozen(bytes) or bytes
    end
    local done, err = B.print(list)
    for i, x in ipairs(list) do
        if bufpool.type(x) then
            x:release()
        end
    end
    return done, err
end

local flushes = {
    no = function() end,
    yes = function() return ngx.flush() end,
    wait = function() return ngx.flush(true) end,
}

local h = {}

function h.answer(name, data)
    local args = ngx.req.get_uri_args()
    local kind, bytes = kinds[name], make[data](tonumber(args.n))
    local prints, told = tonumber(args.prints or 1), {}
    if args.status then
        ngx.status = tonumber(args.status)
    end
    local from = 1
    for i = 1, prints do
        local to = i == prints and #bytes
            or math.floor(#bytes * i * i / prints / prints)
        local object = kind.object(bytes:sub(from, to))
        for _, result in ipairs {
            { kind.print(object, args.last) },
            { flushes[args.flush or "no"]() },
        } do
            told[#told + 1] = tostring(result[1]) .. tostring(result[2])
        end
        if type(object) ~= "string" then
            object:release()
        end
        from = to + 1
    end
    if args.tell then
        ngx.print(table.concat(told, ", "))
    end
end

-- Shows where a chunk ends.
function h.chunks()
    if #ngx.arg[1] > 0 then
        ngx.arg[1] = #ngx.arg[1] .. " " .. ngx.arg[1] .. "\n"
    end
end

function h.out()
    collectgarbage()
    ngx.print(pool:stats().checked_out)
end

return h
]==]

local SIZES = os.getenv "FILTER_SIZES" == "all"
    and { 1, 4095, 4096, 4097, 65536, 400000, 1048576 } or { 1, 4096, 400000 }
local FEW_SIZES = { 1, 4096, 400000 }
local WAYS = { "prints=1", "prints=3", "prints=1&last=%C1",
    "prints=4&flush=yes", "prints=3&flush=wait&last=x" }
local ONCE = { "prints=1", "prints=1&last=%C1" }
local UNTIL_WAIT = { WAYS[1], WAYS[2], WAYS[3], WAYS[4] }
local KINDS = { "plain", "frozen", "buffer" }

-- By the filter: the module that it is in, where that is not nginx itself; what
-- is printed; its directives; and the ways that the Lua module masters. After
-- a print in which a filter made a subrequest, it sends out of order; filters
-- that hold a response back make ngx.flush(true) wait for ever; and so does
-- HEAD for the size of a picture.
local FILTERS = {
    nothing = { data = "text", conf = "" },
    charset_to_utf8 = { data = "eight",
        conf = "source_charset koi8-r; charset utf-8;" },
    charset_from_utf8 = { data = "letters",
        conf = "source_charset utf-8; charset koi8-r;" },
    charset_in_place = { data = "eight",
        conf = "source_charset koi8-r; charset windows-1251;" },
    image_test = { module = "image_filter", data = "picture", ways = UNTIL_WAIT,
        conf = "image_filter test;" },
    image_size = { module = "image_filter", data = "picture", ways = UNTIL_WAIT,
        conf = "image_filter size; image_filter_buffer 2m;" },
    image_crop = { module = "image_filter", data = "picture", ways = UNTIL_WAIT,
        conf = "image_filter crop 1 1; image_filter_buffer 2m;" },
    gzip = { data = "text", conf = "gzip on; gzip_http_version 1.0; "
        .. "gzip_min_length 1;", curl = "-H 'Accept-Encoding: gzip'" },
    brotli = { module = "brotli_filter", data = "text", conf = "brotli on; "
        .. "brotli_min_length 1;", curl = "-H 'Accept-Encoding: br'" },
    sub = { data = "text", conf = "sub_filter_once off; "
        .. "sub_filter '00' 'zero'; sub_filter '<b>' '<i>';" },
    subs = { module = "subs_filter", data = "text", ways = UNTIL_WAIT,
        conf = "subs_filter '00' 'zero' gr; subs_filter 'words' '';" },
    -- It waits for a body where there is none: HEAD is not answered.
    xslt = { module = "xslt_filter", data = "document", ways = UNTIL_WAIT,
        head = false,
        conf = "xslt_stylesheet sheet.xslt;" },
    ssi = { data = "tags", conf = "ssi on;" },
    ssi_include = { data = "includes", conf = "ssi on;", ways = ONCE },
    addition = { data = "text",
        conf = "add_before_body /part; add_after_body /part;" },
    addition_after = { data = "text",
        conf = "add_after_body /part;" },
    slice = { data = "text", conf = "slice 4k;", curl = "-r 5-5000" },
    range = { data = "text", conf = "", curl = "-r 5-9,4000-5000" },
    lua = { data = "text", conf = "header_filter_by_lua_block { "
        .. "ngx.header.content_length = nil }" .. [[
        body_filter_by_lua_block { require("handlers").chunks() }]] },
    lua_and_charset = { data = "eight",
        conf = "source_charset koi8-r; charset windows-1251; "
        .. "body_filter_by_lua_block { require('handlers').chunks() }" },
    all = { data = "text", ways = UNTIL_WAIT,
        conf = "ssi on; sub_filter '00' 'zero'; gzip on; "
        .. "sub_filter_once off; charset utf-8; "
        .. "source_charset koi8-r; gzip_min_length 1;",
        curl = "-H 'Accept-Encoding: gzip'" },
}
local TYPES = { document = "text/xml", picture = "image/gif" }

local SHEET = [[
<xsl:stylesheet version="1.0"
 xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:output method="text"/>
<xsl:template match="/"><xsl:value-of select="count(/list/item)"/>
<xsl:value-of select="/"/></xsl:template>
</xsl:stylesheet>
]]

local function maps()
    local utf8, in_place = {}, {}
    for byte = 128, 255 do
        utf8[#utf8 + 1] = ("%02X D0%02X;"):format(byte, 128 + byte % 64)
        in_place[#in_place + 1] = ("%02X %02X;"):format(byte, 383 - byte)
    end
    return ("charset_map koi8-r utf-8 { %s }\n"
        .. "charset_map koi8-r windows-1251 { %s }\n"):format(
        table.concat(utf8, " "), table.concat(in_place, " "))
end

local LISTEN = [[
        listen 127.0.0.1:@PORT@;
        listen 127.0.0.1:@PORT1@ http2;
]]

local function is_there(filter)
    return not filter.module or select(2, shell(("test -e %s/ngx_http_%s_"
        .. "module.so"):format(nginx.modules, filter.module))) == 0
end

local function configuration(modules)
    local all, loaded = {}, {}
    local server = { 'location = /part { return 200 "[part]"; }',
        'location = /out { content_by_lua_block { require("handlers").out() } '
        .. '}' }
    for _, name in ipairs(modules) do
        all[#all + 1] = name
    end
    for name, filter in pairs(FILTERS) do
        if is_there(filter) then
            if filter.module and not loaded[filter.module] then
                loaded[filter.module] = true
                all[#all + 1] = ("%s/ngx_http_%s_module.so"):format(
                    nginx.modules, filter.module)
            end
            server[#server + 1] = ([[
                location ~ ^/%s/(\w+)$ {
                    default_type %s;
                    %s
                    content_by_lua_block {
                        require("handlers").answer(ngx.var[1], "%s")
                    }
                }]]):format(name, TYPES[filter.data] or "text/html",
                filter.conf, filter.data)
        end
    end
    return nginx.conf { modules = all, listen = LISTEN, http = maps(),
        server = table.concat(server, "\n") }
end

-- The answers to all of these paths, each with its header. With HTTP/2, curl
-- does not get on with a second request in one connection. How much comes
-- before nginx cuts a stream of HTTP/2 off is left to chance; versions after
-- 1.22 do that when a subrequest of SSI fails.
local function answers(server, paths, options, port)
    local config, said, failed = {}, "", {}
    must(("rm -f %s/answer*"):format(server.dir))
    for i, path in ipairs(paths) do
        config[#config + 1] = ('url = "%s"\noutput = "%s/answer%d"\n'):format(
            server:url(path, port), server.dir, i)
        if port or i == #paths then
            nginx.write(server.dir .. "/curl", table.concat(config))
            local text = shell(("curl -sS -i --max-time 10 %s -K %s/curl")
                :format(options, server.dir))
            failed[i] = port and text:match "stream %d+ was not closed cleanly"
            said = said .. text
            config = {}
        end
    end
    local list = {}
    for i in ipairs(paths) do
        local name = server.dir .. "/answer" .. i
        local file = io.open(name, "rb")
        list[i] = failed[i] or file
            and file:read "*a":gsub("\r\n[Dd]ate: [^\r]*", "", 1)
            or "no answer: " .. said
        if file then
            file:close()
        end
    end
    return list
end

-- Whether all kinds print what ngx.print prints.
local function compare(server, name, ways, sizes, options, port)
    local paths = {}
    for _, way in ipairs(ways) do
        for _, n in ipairs(sizes) do
            for _, kind in ipairs(KINDS) do
                paths[#paths + 1] = ("/%s/%s?n=%d&%s"):format(name, kind, n,
                    way)
            end
        end
    end
    local list = answers(server, paths, options, port)
    for i, answer in ipairs(list) do
        local plain = list[i - (i - 1) % #KINDS]
        assert.truthy(#plain > 0, "no answer to " .. paths[i])
        if plain ~= answer then
            error(paths[i] .. " " .. options .. ": "
                .. nginx.difference(plain, answer), 0)
        end
    end
    return list
end

local function cases(modules)
    local server

    setup(function()
        server = nginx.start { conf = configuration(modules),
            files = { ["handlers.lua"] = HANDLERS, ["sheet.xslt"] = SHEET } }
    end)
    teardown(function()
        server:stop()
    end)

    local names = {}
    for name in pairs(FILTERS) do
        names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do
        local filter = FILTERS[name]
        if is_there(filter) then
            it("prints through " .. name, function()
                local curl = filter.curl or ""
                local ways = filter.ways or WAYS
                compare(server, name, ways, #modules > 0 and SIZES or FEW_SIZES,
                    "--http1.1 " .. curl)
                compare(server, name, ways, FEW_SIZES, "--http1.0 " .. curl)
                ways = filter.ways == ONCE and ONCE or { "prints=2" }
                compare(server, name, ways, { 70000 },
                    "--http2-prior-knowledge " .. curl, 1)
                if filter.data ~= "picture" and filter.head ~= false then
                    compare(server, name, ways, { 70000 }, "-I " .. curl)
                end
            end)
        else
            pending(("prints through %s: ngx_http_%s_module is not installed")
                :format(name, filter.module))
        end
    end

    it("returns what ngx.print and ngx.flush return", function()
        for _, options in ipairs { "--http1.1", "--http1.0" } do
            for _, way in ipairs(WAYS) do
                compare(server, "nothing", { way .. "&tell=1",
                    way .. "&tell=1&status=404", way .. "&tell=1&status=204" },
                    { 1, 5000, 1000000 }, options)
            end
        end
    end)

    -- Otherwise all of the above may compare errors.
    it("prints pictures that are pictures", function()
        if is_there(FILTERS.image_size) then
            local list = compare(server, "image_size", { "prints=1" },
                { 400000 }, "")
            assert.truthy(list[1]:find('"width": 2', 1, true), list[1])
        end
        local list = compare(server, "charset_to_utf8", { "prints=1" },
            { 400000 }, "")
        assert.truthy(#list[1] > 500000)
    end)

    it("gives everything back", function()
        assert.truthy(nginx.soon(function()
            return server:get "/out".body == "0"
        end), "some are out")
        for line in server:log():gmatch "[^\n]+" do
            -- nginx's own, of the addition filter, which Debian's 1.22.1-9
            -- says for ngx.print, too, up to deb12u9.
            local own = line:find("header already sent", 1, true)
                and line:find('subrequest: "/part"', 1, true)
            assert.falsy(not own and (line:find "%[crit%]"
                or line:find "%[alert%]"), line)
        end
    end)
end

nginx.ways("bufpool.ngx", cases)
