-- The configuration of a pool: checks it and fills in the defaults.

local check = require "bufpool.check"
local core = require "bufpool.core"

local byte, find, format = string.byte, string.find, string.format
local floor, min = math.floor, math.min
local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local raise = check.raise

local limits = core.constants
local GRAIN = limits.CLASS_GRAIN

-- Seconds. A handler that ends early leaves its tickets with nobody.
local TTL_IN_NGINX = 60

-- The settings that C has a table of, by key; a function that checks a value
-- and returns what C gets, by key.
local settings, checks = {}, {}

local config = {}

-- Edit distance, by rows.
local function distance(a, b)
    local row = {}
    for j = 0, #b do
        row[j] = j
    end
    for i = 1, #a do
        local diagonal = row[0]
        row[0] = i
        for j = 1, #b do
            local same = byte(a, i) == byte(b, j)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1,
                diagonal + (same and 0 or 1))
        end
    end
    return row[#b]
end

local function nearest(key)
    local best, least
    for name in pairs(checks) do
        local d = distance(key, name)
        if not least or d < least or d == least and name < best then
            best, least = name, d
        end
    end
    return best
end

local function wrong(key, expected, value, name)
    if type(value) == "string" then
        value = format("%q", value)
    elseif type(value) ~= "number" then
        value = type(value)
    end
    raise(format("bad value for '%s' in '%s' (%s expected, got %s)", key,
        name or "new", expected, value))
end

function checks.name(value)
    if type(value) ~= "string" or #value < 1 or #value > limits.NAME_MAX
        or find(value, "%z") then
        wrong("name", format("string of 1 to %d bytes without zeros",
            limits.NAME_MAX), value)
    end
    return value
end

-- The value as a number, if it is a whole one from low to high.
local function whole(key, value, low, high, expected, name)
    local n = check.integer(value) or value
    if type(n) ~= "number" or not (n >= low and n <= high)
        or n ~= floor(n) then
        wrong(key, expected or format("integer from %.14g to %.14g", low, high),
            value, name)
    end
    return n
end

-- By type.
local types = {}

-- SIZE_END - 1024 is the number before SIZE_END.
function types.size(key, value)
    return whole(key, value, 0, check.SIZE_END - 1024, "size")
end

function types.count(key, value)
    types.size(key, value)
    return whole(key, value, 0, limits.COUNT_MAX)
end

function types.node(key, value)
    if value == "local" then
        return limits.NUMA_LOCAL
    end
    return whole(key, value, 0, limits.INT_MAX, "number of a node or 'local'")
end

function types.seconds(key, value)
    local seconds = check.integer(value) or value
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds < 2 ^ 53) then
        wrong(key, "number of seconds", value)
    end
    return seconds
end

function types.boolean(key, value)
    if type(value) ~= "boolean" then
        wrong(key, "boolean", value)
    end
    return value
end

-- What C calls the values of leak_detection.
local DETECTION = { off = 0, sampled = 1, all = 2 }

function types.detection(key, value, name)
    if type(value) ~= "string" or not DETECTION[value] then
        wrong(key, "'off', 'sampled' or 'all'", value, name)
    end
    return DETECTION[value]
end

function types.number(key, value, name)
    return whole(key, value, 0, limits.INT_MAX, nil, name)
end
types.sample = types.number

-- What C calls the values of hardened.
local HARDENED = { [false] = 0, [true] = 1, sampled = 2 }

function types.hardened(key, value)
    if type(value) ~= "boolean" and value ~= "sampled" then
        wrong(key, "boolean or 'sampled'", value)
    end
    return HARDENED[value]
end

for _, setting in ipairs(core.settings) do
    local key, check_type = setting.key, types[setting.type]
    settings[key] = setting
    checks[key] = function(value, name)
        return check_type(key, value, name)
    end
end

local function class(value, where)
    if type(value) ~= "table" then
        wrong(where, "table", value)
    end
    check.keys(value, format("'%s' in 'new'", where), "size", "count")
    local size = whole(where .. ".size", value.size, GRAIN, limits.CLASS_MAX)
    if size % GRAIN ~= 0 then
        wrong(where .. ".size", format("multiple of %d", GRAIN), size)
    end
    local count = value.count
    return { size = size, count = type(count) == "nil" and 0
        or whole(where .. ".count", count, 0, limits.COUNT_MAX) }
end

function checks.classes(value)
    if type(value) ~= "table" then
        wrong("classes", "list of tables", value)
    end
    local list, seen, others = {}, {}, 0
    for k, each in ipairs(value) do
        local where = format("classes[%d]", k)
        list[k] = class(each, where)
        local size = list[k].size
        if seen[size] then
            raise(format("bad value for '%s.size' in 'new' (%.14g is also the "
                .. "size of %s)", where, size, seen[size]))
        end
        seen[size] = where
    end
    for _ in pairs(value) do
        others = others + 1
    end
    if #list < 1 or #list > limits.CLASSES_MAX or others ~= #list then
        raise(format("bad value for 'classes' in 'new' (list of 1 to %d tables "
            .. "expected, got %d entries, %d of them in a list)",
            limits.CLASSES_MAX, others, #list))
    end
    return list
end

local function checked(key, value)
    if checks[key] then
        return checks[key](value)
    elseif type(key) ~= "string" then
        raise(format("unknown key [%s] in 'new'", tostring(key)))
    end
    raise(format("unknown key '%s' in 'new' (did you mean '%s'?)", key,
        nearest(key)))
end

-- The values of leak_detection and leak_sample that a pool is to have from now
-- on; nil for what is not given.
function config.changed(given)
    if type(given) ~= "table" then
        check.bad_argument(1, "set", "table expected, got " .. type(given))
    end
    check.keys(given, "'set'", "leak_detection", "leak_sample")
    local detection, sample = given.leak_detection, given.leak_sample
    if type(detection) ~= "nil" then
        detection = checks.leak_detection(detection, "set")
    end
    if type(sample) ~= "nil" then
        sample = checks.leak_sample(sample, "set")
    end
    return detection, sample
end

-- The whole configuration that `given` stands for.
function config.complete(given)
    local all = {}
    for key, setting in pairs(settings) do
        all[key] = setting.default
    end
    if check.in_nginx then
        all.ticket_ttl = TTL_IN_NGINX
    end
    if type(given) ~= "nil" and type(given) ~= "table" then
        check.bad_argument(1, "new", "table expected, got " .. type(given))
    end
    given = given or {}
    for key, value in pairs(given) do
        all[key] = checked(key, value)
    end
    for _, setting in ipairs(all.classes and core.settings or {}) do
        if setting.type == "count" and type(given[setting.key]) ~= "nil" then
            raise(format("both 'classes' and '%s' in 'new': with classes of "
                .. "its own a pool has no others", setting.key))
        end
    end
    return all
end

return config
