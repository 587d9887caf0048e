-- The owner word of a shelf (src/core/cache.h) in every order of its steps,
-- and under every reordering that C11 allows without load buffering: by the
-- model in spec/model. The protocol holds; each of its parts that is left out
-- is missed.
--
-- MODEL=all also runs the largest ones.
local explore = require "model.explore"
local shelf = require "model.shelf"

local BEGINNINGS = { "open", "shut", "fenced" }
local KINDS = { "claim", "twice", "close", "adopt" }
local all = os.getenv "MODEL" == "all"

local function run(kind, without)
    local weak = {}
    for name in without:gmatch "%S+" do
        weak[name] = true
    end
    return explore.run(shelf.model(kind, weak))
end

describe("the owner word of a shelf", function()
    for _, kind in ipairs(KINDS) do
        for _, beginning in ipairs(BEGINNINGS) do
            if all or kind ~= "adopt" or beginning == "open" then
                it(("lets one thread in at a time, and loses nothing: %s, %s")
                    :format(kind, beginning), function()
                    local states, wrong = run(kind, beginning)
                    assert.is_nil(wrong)
                    assert.is_true(states > 2000)
                end)
            end
        end
    end

    local TWO = "two threads use count"
    local LEFT = "buffers are left on a shelf that was to be emptied"
    -- What is left out, where it is missed, and how.
    for _, case in ipairs {
        { "no_heavy", "claim close adopt", TWO },
        { "no_C3", "claim close adopt", TWO },
        { "no_C3_open shut", "twice", TWO },
        { "no_E3", "claim close adopt", TWO },
        { "relaxed_exit", "claim close adopt", TWO },
        { "opens_claimed", "claim close adopt", TWO },
        { "no_exchange fenced", "claim close", TWO },
        { "no_second_look", "close adopt", LEFT },
        { "no_last_look", "close", LEFT },
        { "adopts_open", "adopt", TWO },
    } do
        it("needs what is left out by " .. case[1], function()
            for kind in case[2]:gmatch "%S+" do
                local _, wrong = run(kind, case[1])
                assert.is_truthy(wrong and wrong:find(case[3], 1, true),
                    kind .. ": " .. tostring(wrong))
            end
        end)
    end
end)
