-- ngx_http_bufpool_module, where nginx has loaded it and it fits these files.

local ffi = require "ffi"

-- The version of the module that these files were written for: VERSION in
-- src/nginx/ngx_http_bufpool_module.c.
local VERSION = 7

ffi.cdef [[
int ngx_http_bufpool_version(void);
void ngx_http_bufpool_pretend(void *r, int on);
int ngx_http_bufpool_send(void *r, struct bufpool_piece *pieces, size_t count,
                          size_t worth);
double ngx_http_bufpool_body_size(void *r);
double ngx_http_bufpool_body_announced(void *r);
double ngx_http_bufpool_body_read(void *r, uint8_t *to, size_t n);
int ngx_http_bufpool_keep(void *r, int keep);
int ngx_http_bufpool_cleanup(void *r, void (*handler)(void *), void *data);
int ngx_http_bufpool_capture(void *r, const struct bufpool_sink *sink);
struct bufpool_sink *ngx_http_bufpool_captured(void *r);
int ngx_http_bufpool_hold(void *r, const struct bufpool_sink *sink);
struct bufpool_sink *ngx_http_bufpool_held(void *r);
int ngx_http_bufpool_replace(void *r, struct bufpool_piece *piece);
const struct bufpool_sink *ngx_http_bufpool_passes(void *r);
]]

local function version()
    return ffi.C.ngx_http_bufpool_version()
end

local loaded, got = pcall(version)
if loaded and got ~= VERSION then
    ngx.log(ngx.ERR, "bufpool: ngx_http_bufpool_module has version ", got,
        ", and bufpool's Lua files need version ", VERSION,
        ": output is copied until both are of one release")
end

-- The functions, by their names; nil without a module that fits.
return { functions = loaded and got == VERSION and ffi.C or nil }
