std = "luajit"
max_line_length = 80
exclude_files = { "build" }
files["spec"] = { std = "luajit+busted" }
files["examples/openresty"] = { std = "ngx_lua" }
files["bench/openresty_*handlers.lua"] = { std = "ngx_lua" }
files["lua/bufpool/ngx.lua"] = { std = "ngx_lua" }
files["lua/bufpool/types.lua"] = { ignore = { "21.", "24.", "43." } }
files["lua/bufpool/ngx"] = { std = "ngx_lua" }
