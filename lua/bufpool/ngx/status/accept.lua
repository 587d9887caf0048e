-- Which format of the status a client prefers.

local ipairs, tonumber = ipairs, tonumber
local find, gmatch, gsub = string.find, string.gmatch, string.gsub
local lower, match, max = string.lower, string.match, math.max

-- In the order in which they are preferred where the client has no preference.
local FORMATS = { "json", "openmetrics", "prometheus", "html" }
local MEDIA = {
    json = "application/json", openmetrics = "application/openmetrics-text",
    prometheus = "text/plain", html = "text/html",
}

-- A media range of an Accept header: its type in lower case, and its quality.
-- Other parameters are not looked at. nil where it is malformed.
local function range_of(part)
    local media, rest = match(part, "^%s*([^%s;]+/[^%s;]+)%s*(.*)$")
    if not media then
        return nil
    end
    local q = 1
    for name, value in gmatch(rest, ";%s*([^%s=;]+)%s*=%s*([^%s;]*)") do
        if lower(name) == "q" then
            q = find(value, "^[01]?%.?%d*$") and tonumber(value)
            if not q or q > 1 then
                return nil
            end
        end
    end
    return lower(media), q
end

-- Without commas in quoted parameters.
local function parts_of(accept)
    local bare = gsub(accept, '"[^"]*"', '""')
    return gmatch(bare, "[^,]+")
end

-- The format that an Accept header prefers; nil when it refuses all.
local function negotiate(accept)
    local quality, seen = {}, false
    for part in parts_of(accept or "") do
        local media, q = range_of(part)
        if media then
            seen = true
            quality[media] = max(quality[media] or 0, q)
        end
    end
    if not seen then
        return FORMATS[1]
    end
    local best, most = nil, 0
    for _, format in ipairs(FORMATS) do
        local media = MEDIA[format]
        -- The most specific range that fits counts.
        local q = quality[media] or quality[match(media, "^[^/]+") .. "/*"]
            or quality["*/*"] or 0
        if q > most then
            best, most = format, q
        end
    end
    return best
end

return { FORMATS = FORMATS, MEDIA = MEDIA, negotiate = negotiate }
