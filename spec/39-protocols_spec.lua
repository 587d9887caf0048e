-- What threads do without waiting for each other, beside the owner word of a
-- shelf (spec/38): the models of spec/model, in every order of their steps and
-- under every reordering that C11 allows without load buffering. Each protocol
-- holds; each of its parts that is left out is missed.
--
-- MODEL=all also runs the largest ones.
local explore = require "model.explore"

local all = os.getenv "MODEL" == "all"

local function run(name, kind, without)
    local weak = {}
    for part in without:gmatch "%S+" do
        weak[part] = true
    end
    return explore.run(require("model." .. name).model(kind, weak))
end

-- Of each model: what it is of; its kinds, of which those that end in * are run
-- with MODEL=all only; what is left out, where, and how that is missed.
local MODELS = {
    {
        "watch", "what a gate says of leak detection",
        kinds = "due wanted set attach",
        { "no_second_look", "due wanted", "does not say what is watched" },
        { "no_look", "set", "does not say what is watched" },
        { "no_attach", "attach", "does not say what is watched" },
        { "relaxed_set", "attach", "does not say what is watched" },
    },
    {
        "record", "a thread's record, and the caches of pools that end",
        kinds = "exit* orphan",
        { "no_look_end", "exit orphan", "an orphan keeps a cache" },
        { "no_look_exit", "exit", "an orphan keeps a cache" },
        { "acq_rel_T2", "exit", "an orphan keeps a cache" },
        { "relaxed_look", "exit orphan", "an orphan keeps a cache" },
        { "relaxed_T2", "exit", "two threads use next" },
        { "relaxed_T3", "exit", "two threads use next" },
        { "relaxed_give_up", "exit", "two threads use mapped" },
    },
    {
        "stack", "a Treiber stack",
        kinds = "pop all",
        { "no_tag", "pop all", "in two places" },
        { "relaxed_push", "pop all", "two threads use bytes" },
        { "relaxed_pop", "pop all", "two threads use bytes" },
        { "relaxed_all", "all", "two threads use bytes" },
    },
    {
        "kept", "what is kept while a pool closes",
        kinds = "put back*",
        { "no_fence", "put", "kept after the close" },
        { "no_look", "put", "kept after the close" },
        { "no_fence_close", "put", "kept after the close" },
        { "no_fence_back", "back", "kept after the close" },
        { "no_look_back", "back", "kept after the close" },
    },
    {
        "ticket", "an entry of the table of tickets",
        kinds = "adopt expire both",
        { "no_count", "adopt both", "the buffer of another ticket" },
        { "relaxed_T1", "adopt expire", "two threads use buf" },
        -- One of the two is enough, because both read what T1 has stored; but
        -- the time is read before T2.
        { "relaxed_T2 relaxed_T5", "adopt", "two threads use buf" },
        { "relaxed_T5", "adopt", "adopted too late" },
        { "relaxed_T3", "adopt expire", "two threads use buf" },
        { "relaxed_T4", "adopt expire", "two threads use buf" },
    },
    {
        "expiry", "which tickets may be due",
        kinds = "same other two",
        { "no_fence", "same", "is not expected" },
        { "takes_late", "same", "is not expected" },
        { "raises_late", "other two", "is not expected" },
        { "relaxed_read", "other two", "is not expected" },
    },
    {
        "depot", "the depot of a thread",
        kinds = "slots marks close",
        { "relaxed_room", "slots", "the ring has no room" },
        { "relaxed_uncount", "slots", "the ring has no room" },
        { "relaxed_push", "slots", "two threads use bytes" },
        { "relaxed_pop", "slots", "an empty slot is taken" },
        { "relaxed_head", "slots marks close", "an empty slot is taken" },
        { "relaxed_tail", "slots marks close", "two threads use bytes" },
        { "counts_late", "slots", "the count is too low" },
        { "no_fence", "marks", "without a mark is not empty" },
        { "no_mark", "marks", "without a mark is not empty" },
        { "no_fence_unmark", "marks", "without a mark is not empty" },
        { "no_look", "marks", "without a mark is not empty" },
        -- Either is enough: so a close needs no membarrier for the depot.
        { "no_fence no_heavy", "close", "in the depot of a closed pool" },
    },
    {
        "pool", "the end of a pool and the next one in its place",
        kinds = "next kept all",
        { "no_id", "next all", "another pool is used" },
        { "no_hold", "next all", "two threads use releaser" },
        { "no_look", "kept", "two threads use releaser" },
        { "relaxed_drop", "kept", "two threads use keeper" },
        { "relaxed_free", "next", "two threads use releaser" },
        { "relaxed_take", "next", "two threads use releaser" },
        { "relaxed_ref", "next all", "two threads use releaser" },
        { "relaxed_create", "all", "two threads use releaser" },
    },
    {
        "search", "the search for a page of blanks",
        kinds = "two take three*",
        { "no_look", "two", "a page of blanks is overlooked" },
        { "sets_first", "two take", "a page of blanks is overlooked" },
        { "takes_late", "two", "a page of blanks is overlooked" },
        -- Without its fence, too. With either alone nothing is missed, because
        -- here what is sequentially consistent takes effect as it is executed;
        -- C11 says less.
        { "relaxed_look", "two", "a page of blanks is overlooked" },
    },
}

-- What two threads of a few steps can lead to, as the values that each has
-- loaded, and those in x and y in the end. Thread 1 stores 1, and thread 2
-- stores 2. An exchange is one of 1 by 2.
local function outcomes(...)
    local found = {}
    local model = { memory = { { "x", 0 }, { "y", 0 } }, vars = { "got" },
        threads = {} }
    local function keep(l, got)
        l.got = 10 * l.got + got
    end
    for t, list in ipairs { ... } do
        local steps = {}
        for text in list:gmatch "[^,]+" do
            local what, x, order = text:match "(%w+) ?(%w*) ?(%w*)"
            local step = { text, order = order ~= "" and order or "relaxed" }
            step[what == "exchange" and "rmw" or what] = x
            step.value = what == "store" and t
                or function(old) return old == 1 and 2 or nil end
            step.go = (what == "load" or what == "exchange") and keep or nil
            steps[#steps + 1] = step
        end
        model.threads[t] = explore.program("thread " .. t, steps)
    end
    function model.settled(memory, vars)
        found[("%d, %d, %d %d"):format(vars[1].got, vars[2].got, memory.x,
            memory.y)] = true
    end
    explore.run(model)
    return found
end

describe("the explorer", function()
    for _, case in ipairs {
        { "a load before what was stored before it", "0, 0, 1 2",
            { "store x,load y", "store y,load x" },
            { "store x,fence,load y", "store y,fence,load x" } },
        { "an old value loaded after a new one", "0, 10, 1 1",
            { "store x,store y", "load y,load x" },
            { "store x,store y release", "load y acquire,load x" } },
        { "an exchange that fails at an old value", "0, 10, 1 1",
            { "store x,store y", "load y,exchange x" },
            { "store x,store y release", "load y acquire,exchange x" } },
        { "stores that are last although they came first", "0, 0, 1 2",
            { "store x,store y", "store y,store x" },
            { "store x,fence,store y", "store y,fence,store x" } },
    } do
        it("finds " .. case[1], function()
            assert.is_true(outcomes(unpack(case[3]))[case[2]])
            assert.is_nil(outcomes(unpack(case[4]))[case[2]])
        end)
    end

    -- This takes a load that is delayed past a later store.
    it("does not find two loads of what is stored after them", function()
        assert.is_nil(outcomes("load x,store y",
            "load y,store x")["2, 1, 2 1"])
    end)
end)

for _, model in ipairs(MODELS) do
    describe(model[2], function()
        for kind, large in model.kinds:gmatch "([^%s*]+)(%*?)" do
            if all or large == "" then
                it(("holds in every order: %s, %s"):format(model[1], kind),
                    function()
                        local states, wrong = run(model[1], kind, "")
                        assert.is_nil(wrong)
                        assert.is_true(states > 20)
                    end)
            end
        end
        for i = 3, #model do
            local part, kinds, missed = unpack(model[i])
            it("needs what is left out by " .. part, function()
                for kind in kinds:gmatch "%S+" do
                    local _, wrong = run(model[1], kind, part)
                    assert.is_truthy(wrong and wrong:find(missed, 1, true),
                        kind .. ": " .. tostring(wrong))
                end
            end)
        end
    end)
end
