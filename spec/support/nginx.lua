-- nginx with its Lua module, started by a spec on loopback ports of its own, in
-- a prefix folder of its own. Required as "support.nginx".
--
--     local server = nginx.start { conf = nginx.conf { server = [[...]] } }
--     local answer = server:get "/path"
--     server:stop()
local ffi = require "ffi"
local helper = require "support.helper"

ffi.cdef [[
int kill(int, int);
int getpid(void);
]]

local quote, shell = helper.quote, helper.shell

local nginx = {}

local BUILD = os.getenv "BUILD" or "build"
local PATIENCE = 10             -- seconds, on a machine that has nothing else
local TRIES = 10                -- ports that may be taken
local QUIT, HUP, KILL = 3, 1, 9

local function run(command)
    return shell("{ " .. command .. "\n} </dev/null")
end

local function must(command)
    local text, status = run(command)
    if status ~= 0 then
        error(command .. ": status " .. status .. ":\n" .. text, 2)
    end
    return text
end

local function read(name)
    local file = assert(io.open(name, "rb"))
    local text = file:read "*a"
    file:close()
    return text
end

local function write(name, text)
    local file = assert(io.open(name, "wb"))
    assert(file:write(text))
    file:close()
end

local function succeeds(command)
    return select(2, run(command)) == 0
end

nginx.read, nginx.write, nginx.must = read, write, must

-- Exists while this process does.
nginx.proc = "/proc/" .. ffi.C.getpid()

nginx.is_root = must "id -u" == "0\n"
nginx.root = must("cd " .. quote(helper.root) .. " && pwd -P"):gsub("\n", "")
nginx.build = BUILD:sub(1, 1) == "/" and BUILD or nginx.root .. "/" .. BUILD

local function ask(what, ...)
    local words = { quote(nginx.root .. "/.ci/nginx-module"), what,
        quote(nginx.program) }
    for _, word in ipairs { ... } do
        words[#words + 1] = quote(word)
    end
    return run(table.concat(words, " "))
end

-- nginx has a LuaJIT of its own, wherever that of the specs is, and takes NGINX
-- for a list of sockets.
nginx.environment = "env -u LD_LIBRARY_PATH -u NGINX"

-- The nginx that is started, where it has its modules, and the module of nginx
-- that was built for it.
nginx.program = os.getenv "NGINX" or "nginx"
nginx.modules = ask "where":gsub("\n", "")
nginx.module = nginx.build .. "/nginx/ngx_http_bufpool_module.so"

-- Is a module compiled into nginx?
local compiled_in = {}
function nginx.inside(name)
    if compiled_in[name] == nil then
        compiled_in[name] = select(2, ask("inside", name)) == 0
    end
    return compiled_in[name]
end

-- Is there a module of nginx that can be used?
function nginx.has(name)
    return nginx.inside(name)
        or succeeds(("test -e %s/%s.so"):format(quote(nginx.modules), name))
end

-- What the Lua module says to a request over HTTP/2 that does not tell how long
-- its body is: version 0.10.26 alone reads none then. Nil where it does.
function nginx.http2_refusal()
    local refusal = "http2 requests are not supported without content-length "
        .. "header"
    local file = nginx.inside "ngx_http_lua_module" and "$(command -v "
        .. quote(nginx.program) .. ")"
        or quote(nginx.modules .. "/ngx_http_lua_module.so")
    return succeeds(("grep -qF %s %s"):format(quote(refusal), file))
        and refusal or nil
end

-- What is not installed, or nil.
function nginx.missing()
    for _, name in ipairs { nginx.program, "curl" } do
        if not succeeds("command -v " .. quote(name)) then
            return name
        end
    end
    if not nginx.has "ngx_http_lua_module" then
        return "nginx's Lua module"
    end
end

-- Why specs cannot be run with our module, or without it; nil if they can.
function nginx.obstacle(with)
    local missing = nginx.missing()
    local inside = nginx.inside "ngx_http_bufpool_module"
    if missing then
        return missing .. " is not installed"
    elseif with and not inside and not succeeds("test -e "
        .. quote(nginx.module)) then
        return "make nginx-module has not built it"
    elseif not with and inside then
        return "nginx has the module compiled in"
    end
end

-- Describes something without our module and with it. The function gets a list
-- of what is to be loaded besides the Lua module, and which of both it is.
function nginx.ways(subject, tests)
    local busted = require "busted"
    for _, with in ipairs { false, true } do
        busted.describe(subject .. (with and " with the module"
            or " without the module"), function()
            local obstacle = nginx.obstacle(with)
            if obstacle then
                return busted.pending("is tried: " .. obstacle)
            end
            tests(with and { nginx.module } or {}, with)
        end)
    end
end

-- Is it so within ten seconds? They are longer where others work, too.
function nginx.soon(condition)
    local left = PATIENCE
    while left > 0 do
        if condition() then
            return true
        end
        os.execute "sleep 0.1"
        left = left - 0.1 / helper.pace()
    end
    return false
end

-- The lines of a text, without empty ones.
function nginx.lines(text)
    local lines = {}
    for line in text:gmatch "[^\n]+" do
        lines[#lines + 1] = line
    end
    return lines
end

-- Where two texts differ, for a message.
function nginx.difference(wanted, got)
    local at = 1
    while wanted:byte(at) and wanted:byte(at) == got:byte(at) do
        at = at + 1
    end
    local from, to = math.max(1, at - 40), at + 40
    return ("%d bytes for %d, different at %d: %q for %q"):format(#got,
        #wanted, at, got:sub(from, to), wanted:sub(from, to))
end

-- Resident bytes of a process; nil when there is none.
function nginx.resident(pid)
    local file = io.open("/proc/" .. pid .. "/statm")
    if file then
        local pages = file:read "*a":match "^%d+ (%d+)"
        file:close()
        return tonumber(pages) * 4096
    end
end

-- The lines that load the Lua module and these files, but for modules that are
-- compiled in.
local function load_lines(modules)
    local lines = {}
    local function add(name)
        if not nginx.inside(name:match "([^/]*)%.so$") then
            lines[#lines + 1] = 'load_module "' .. name .. '";\n'
        end
    end
    for _, name in ipairs { "ndk_http_module", "ngx_http_lua_module" } do
        add(nginx.modules .. "/" .. name .. ".so")
    end
    for _, name in ipairs(modules or {}) do
        add(name)
    end
    return table.concat(lines)
end

-- A configuration. Each part is text: `main` outside of any block, `http`,
-- `server`, and `listen` in place of the plain listen line. `modules` are files
-- to load besides the Lua module, unless nginx has them inside; `workers` is 1
-- unless given. @PORT@ stands for the server's port, and @PORT1@ to @PORT9@ for
-- the ports after it. Lua files are found in the prefix folder, too.
function nginx.conf(parts)
    return load_lines(parts.modules) .. ([[
worker_processes %d;
env BUFPOOL_DEBUG;
error_log error.log;
pid nginx.pid;
%s
events {
    worker_connections 256;
}
http {
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    lua_package_path "$prefix/?.lua;%s/lua/?.lua;%s/lua/?/init.lua;;";
    lua_package_cpath "%s/lua/?.so;;";
%s
    server {
%s
%s
    }
}
]]):format(parts.workers or 1, parts.main or "", nginx.root, nginx.root,
        nginx.build, parts.http or "",
        parts.listen or "        listen 127.0.0.1:@PORT@;",
        parts.server or "")
end

-- The configuration of the examples as it is, but for the port and modules.
function nginx.examples(modules)
    local conf = read(nginx.root .. "/examples/openresty/nginx.conf")
        :gsub("8089", "@PORT@"):gsub("\nload_module [^\n]*", "")
    return load_lines(modules) .. conf
end

local server = {}
server.__index = server

local function random()
    local file = assert(io.open("/dev/urandom", "rb"))
    local a, b = file:read(2):byte(1, 2)
    file:close()
    return a * 256 + b
end

local function folder_of(options)
    local dir = must "mktemp -d":gsub("\n", "")
    must("mkdir -p " .. dir .. "/build")
    for name, target in pairs(options.links or {}) do
        must(("ln -s %s %s/%s"):format(quote(target), dir, name))
    end
    for name, text in pairs(options.files or {}) do
        write(dir .. "/" .. name, text)
    end
    if options.prepare then
        must("cd " .. dir .. " && " .. options.prepare)
    end
    return dir
end

-- Starts nginx and waits until it answers. options: `conf`, the text of the
-- configuration; `links`, files to link into the prefix folder, by name;
-- `files`, their text by name; `prepare`, a command to run there; `pid`, where
-- the configuration says that the pid goes; `user`, whom workers run as when
-- root starts nginx, "root" unless given, false for nginx's own choice; `wrap`,
-- a command that nginx runs under.
function nginx.start(options)
    local self = setmetatable({}, server)
    self.dir = folder_of(options)
    local user = options.user
    if user == nil and nginx.is_root then
        user = "root"
    end
    local pid = self.dir .. "/" .. (options.pid or "nginx.pid")
    local command = ("%s %s %s -p %s -c nginx.conf "
        .. "-e %s/build/early.log %s >%s/build/output"):format(
        nginx.environment, options.wrap or "", quote(nginx.program), self.dir,
        self.dir,
        user and "-g 'user " .. user .. ";'" or "", self.dir)
    for _ = 1, TRIES do
        self.port = 20000 + random() % 12000
        write(self.dir .. "/nginx.conf", (options.conf:gsub("@PORT(%d?)@",
            function(n) return self.port + (tonumber(n) or 0) end)))
        if succeeds(command) then
            -- It writes the pid before it hears signals, and has workers after.
            assert(nginx.soon(function()
                self.pid = succeeds("test -s " .. pid)
                    and tonumber((read(pid)))
                return self.pid and next(self:workers())
            end), "nginx has no worker")
            return self
        elseif not self:log():find("bind() ", 1, true) then
            break
        end
        -- Another spec's nginx has the port. The log is of the next try alone.
        must(("cd %s && rm -f build/early.log build/output error.log")
            :format(self.dir))
    end
    local log = self:log()
    must("rm -rf " .. self.dir)
    error("nginx does not start:\n" .. log, 2)
end

-- What nginx wrote to its logs and its output.
-- A server with the location that the guide prints under a heading, in front of
-- an upstream that answers with 70000 times x.
function nginx.start_example(heading, modules, main)
    local text = nginx.read(nginx.root .. "/doc/openresty.md")
        :match("## " .. heading .. ".-```nginx\n(.-)```")
    return nginx.start { conf = nginx.conf { modules = modules, main = main,
        server = text:gsub("8089", "@PORT@") .. [[
            location = /hello {
                content_by_lua_block { ngx.print(("x"):rep(70000)) }
            }
        ]] } }
end

function server:log()
    return (shell("cat " .. self.dir .. "/build/early.log " .. self.dir
        .. "/build/output " .. self.dir .. "/error.log 2>/dev/null"))
end

-- One that has ended may stay for a second until somebody asks for its status.
function server:alive()
    local file = io.open("/proc/" .. self.pid .. "/stat")
    local state
    if file then
        state = (file:read "*a" or ""):match "^%d+ %b() (%a)"
        file:close()
    end
    return state ~= nil and state ~= "Z"
end

-- Tells nginx to finish its requests and waits for its end. Whether it ended.
function server:quit()
    if self:alive() then
        ffi.C.kill(self.pid, QUIT)
    end
    return nginx.soon(function() return not self:alive() end)
end

-- The same; then removes its folder. nginx that does not end is killed.
function server:stop()
    if not self.dir then
        return
    end
    local ended = self:quit()
    if not ended then
        for worker in pairs(self:workers()) do
            ffi.C.kill(worker, KILL)
        end
        ffi.C.kill(self.pid, KILL)
    end
    must("rm -rf " .. self.dir)
    self.dir = nil
    return ended
end

-- Tells nginx to load its configuration again.
function server:reload()
    ffi.C.kill(self.pid, HUP)
end

-- The pids of its workers, as keys.
function server:workers()
    local pids = {}
    local file = io.open(("/proc/%d/task/%d/children"):format(self.pid,
        self.pid))
    if file then
        for child in file:read "*a":gmatch "%d+" do
            pids[tonumber(child)] = true
        end
        file:close()
    end
    return pids
end

-- The address of a path; `port` is 1 to 9 for the ports after the first one.
function server:url(path, port, scheme)
    return ("%s://127.0.0.1:%d%s"):format(scheme or "http",
        self.port + (port or 0), path)
end

-- One request by curl. options: `method`; `body`, a string; `headers`, by
-- name; `port` and `scheme` as for url; `curl`, more options of curl as text.
-- Returns { body, status, headers by small name, head, failed, said }: head is
-- the text of the headers, failed is curl's status unless that is 0, and said
-- is what curl printed.
function server:get(path, options)
    options = options or {}
    local words = { "curl -sS -k --max-time", 20 * helper.pace(), "-D",
        self.dir .. "/head", "-o", self.dir .. "/body", "-w '%{http_code}'",
        options.curl or "" }
    if options.method then
        words[#words + 1] = "-X " .. options.method
    end
    if options.body then
        write(self.dir .. "/sent", options.body)
        words[#words + 1] = "--data-binary @" .. self.dir .. "/sent"
    end
    for name, value in pairs(options.headers or {}) do
        words[#words + 1] = "-H " .. quote(name .. ": " .. value)
    end
    words[#words + 1] = quote(self:url(path, options.port, options.scheme))
    write(self.dir .. "/body", "")
    write(self.dir .. "/head", "")
    local text, failed = run(table.concat(words, " "))
    local headers = {}
    for name, value in read(self.dir .. "/head")
        :gmatch "([^\r\n:]+): ?([^\r\n]*)" do
        headers[name:lower()] = value
    end
    return {
        body = read(self.dir .. "/body"), headers = headers,
        head = read(self.dir .. "/head"),
        status = tonumber(text:match "(%d+)$"),
        failed = failed ~= 0 and failed or nil, said = text,
    }
end

return nginx
