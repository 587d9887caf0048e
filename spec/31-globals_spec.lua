-- A program may remove or replace globals once it has loaded what it needs, and
-- sandboxes do. bufpool keeps what it needs.
local helper = require "support.helper"

local PROGRAM = helper.root .. "spec/support/exits.lua"

describe("without globals and methods of strings", function()
    for _, kind in ipairs { "buffer", "handle", "frozen" } do
        it(("all methods of a %s work, and say what is wrong"):format(kind),
            function()
                assert.equal("", helper.child_ok(([[
                    arg = { [0] = %q, %q, "1", "100", "sandbox" }
                    dofile(arg[0])]]):format(PROGRAM, kind)))
            end)
    end
end)
