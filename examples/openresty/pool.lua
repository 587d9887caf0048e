-- The pool of all examples, which each worker process makes for itself. By its
-- name the worker threads of the process find it.
local bufpool = require "bufpool"

return assert(bufpool.new {
    name = "app",
    sixty_four_kib_count = 32,
    one_mib_count = 8,
    ticket_ttl = 60,        -- seconds until a ticket that nobody took expires
})
