-- The configuration of a pool: checks it and fills in the defaults.

local check = require "bufpool.check"

local floor, min = math.floor, math.min
local raise = check.raise

local SIZES = {
    four_kib_count = 64,
    sixty_four_kib_count = 8,
    two_fifty_six_kib_count = 2,
    one_mib_count = 0,
    max_bytes = 0,
}
local LATER = {
    classes = true, prefault = true, huge_pages = true, hardened = true,
    leak_detection = true, ticket_ttl = true,
}
local NAME_MAX = 63
local NODE_MAX = 2 ^ 31 - 1

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
            local same = a:byte(i) == b:byte(j)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1,
                diagonal + (same and 0 or 1))
        end
    end
    return row[#b]
end

local function nearest(key)
    local best, least
    local function try(name)
        local d = distance(key, name)
        if not least or d < least or d == least and name < best then
            best, least = name, d
        end
    end
    for name in pairs(SIZES) do
        try(name)
    end
    for name in pairs(LATER) do
        try(name)
    end
    try("numa_node")
    try("name")
    return best
end

local function wrong(key, expected, value)
    if type(value) == "string" then
        value = ("%q"):format(value)
    elseif type(value) ~= "number" then
        value = type(value)
    end
    raise(("bad value for '%s' in 'new' (%s expected, got %s)"):format(key,
        expected, value))
end

local checks = {}

function checks.name(value)
    if type(value) ~= "string" or #value < 1 or #value > NAME_MAX
        or value:find("%z") then
        wrong("name", ("string of 1 to %d bytes without zeros")
            :format(NAME_MAX), value)
    end
    return value
end

function checks.numa_node(value)
    if value == "local" then
        raise "numa_node = 'local' is not built yet"
    end
    local node = check.integer(value) or value
    if type(node) ~= "number" or not (node >= 0 and node <= NODE_MAX)
        or node ~= floor(node) then
        wrong("numa_node", "number of a node", value)
    end
    return node
end

local function checked(key, value)
    if LATER[key] then
        raise(("'%s' is not built yet"):format(key))
    elseif checks[key] then
        return checks[key](value)
    elseif not SIZES[key] then
        if type(key) ~= "string" then
            raise(("unknown key [%s] in 'new'"):format(tostring(key)))
        end
        raise(("unknown key '%s' in 'new' (did you mean '%s'?)"):format(key,
            nearest(key)))
    end
    local n = check.integer(value) or value
    if type(n) ~= "number" or not (n >= 0 and n < 2 ^ 63) or n ~= floor(n) then
        wrong(key, "size", value)
    end
    return n
end

---The whole configuration that `given` stands for.
---@param given bufpool.Config?
---@return table
return function(given)
    local config = { numa_node = -1 }
    for key, default in pairs(SIZES) do
        config[key] = default
    end
    if type(given) ~= "nil" and type(given) ~= "table" then
        check.bad_argument(1, "new", "table expected, got " .. type(given))
    end
    for key, value in pairs(given or {}) do
        config[key] = checked(key, value)
    end
    return config
end
