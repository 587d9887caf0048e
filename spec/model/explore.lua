-- Runs a few threads in every order, and under every reordering of their loads
-- and stores that C11 allows to programs without load buffering. That covers
-- store buffering as x86 and ARM have it, and ARM's loads of old values.
--
-- Each location has a list of the values stored to it, in modification order. A
-- view says for each location which of them a thread has at least to see. A
-- load returns any value from there on. A store takes any place behind what its
-- thread has seen, so also before what others have stored already; nothing
-- comes between a read-modify-write and the value that it has read. A release
-- store lists the thread's view with the value, and an acquire load adds that
-- view to its thread's. A sequentially consistent access also sees, and is seen
-- through, the view S that all have in common, and a fence merges the thread's
-- whole view with S.
--
-- A program is a list of steps. A step has at most one of
--     load = LOCATION             gets its value
--     store = LOCATION, value =   a number, or function(l)
--     rmw = LOCATION, value =     function(old, l); nil: an exchange fails,
--                                 which is a relaxed load
--     use = LOCATION, value =     the same for what must not be raced for:
--                                 what is not the thread's to use is a fault
--     fence = true                sequentially consistent
--     heavy = true                membarrier: a fence in every thread
-- and `order`, "relaxed" unless given, `unless`, function(l) that skips the
-- step, and `go`, function(l, got) that returns the name of the next step, nil
-- for the one that follows. LOCATION: its name, or function(l) that returns it.
-- l: the thread's variables, numbers. A step's first element is its name. The
-- step "end" ends the thread.
local explore = {}

local acquires = { acquire = true, acq_rel = true, seq_cst = true }
local releases = { release = true, acq_rel = true, seq_cst = true }

local function copy(t)
    local to = {}
    for k, v in pairs(t) do
        to[k] = v
    end
    return to
end

local function join(to, from)
    for i = 1, #to do
        if from[i] > to[i] then
            to[i] = from[i]
        end
    end
end

-- Lists that are never changed, messages, are shared between states.
local function copy_state(s)
    local to = { memory = {}, views = {}, vars = {}, at = copy(s.at),
        sc = copy(s.sc) }
    for i, list in ipairs(s.memory) do
        to.memory[i] = copy(list)
    end
    for i, view in ipairs(s.views) do
        to.views[i], to.vars[i] = copy(view), copy(s.vars[i])
    end
    return to
end

local function encode(s, names)
    local out, n = {}, 0
    local function add(list)
        for i = 1, #list do
            n = n + 1
            out[n] = list[i]
        end
        n = n + 1
        out[n] = "/"
    end
    add(s.at)
    add(s.sc)
    for i, view in ipairs(s.views) do
        add(view)
        for _, name in ipairs(names) do
            n = n + 1
            out[n] = s.vars[i][name] or "-"
        end
    end
    for _, list in ipairs(s.memory) do
        for _, message in ipairs(list) do
            n = n + 1
            out[n] = message.value .. (message.rmw and "r" or "")
            add(message.view)
        end
        n = n + 1
        out[n] = ";"
    end
    return table.concat(out, ",")
end

local function fence(s, t)
    join(s.views[t], s.sc)
    s.sc = copy(s.views[t])
end

local function load(s, t, x, order, i)
    local view, message = s.views[t], s.memory[x][i]
    view[x] = i
    if acquires[order] then
        join(view, message.view)
    end
    if order == "seq_cst" then
        s.sc[x] = math.max(s.sc[x], i)
    end
    return message.value
end

-- Replaces the place at location x in each view.
local function renumber(s, x, number)
    local function change(view)
        view[x] = number(view[x])
        return view
    end
    change(s.sc)
    for _, view in ipairs(s.views) do
        change(view)
    end
    for _, list in ipairs(s.memory) do
        for i, message in ipairs(list) do
            list[i] = { value = message.value, rmw = message.rmw,
                view = change(copy(message.view)) }
        end
    end
end

-- Stores as the i-th value. What a read-modify-write stores also carries what
-- it has read (`from`).
local function insert(s, t, x, i, order, value, from)
    local list, view = s.memory[x], s.views[t]
    if i <= #list then
        renumber(s, x, function(n) return n < i and n or n + 1 end)
    end
    view[x] = i
    local carried = releases[order] and copy(view) or copy(s.zero)
    carried[x] = i
    if from then
        join(carried, from.view)
    end
    table.insert(list, i, { value = value, view = carried,
        rmw = from ~= nil })
    if order == "seq_cst" then
        s.sc[x] = i
    end
end

local function first_seen(s, t, x, order)
    local i = s.views[t][x]
    return order == "seq_cst" and math.max(i, s.sc[x]) or i
end

-- Calls act(copy of s, i) for each place of location x that the thread may load
-- from.
local function each_seen(s, t, x, order, act)
    for i = first_seen(s, t, x, order), #s.memory[x] do
        local to = copy_state(s)
        to.zero = s.zero
        act(to, i)
    end
end

-- Is the value after the i-th made of it by a read-modify-write? Then nothing
-- else comes in between.
local function tied(s, x, i)
    local after = s.memory[x][i + 1]
    return after and after.rmw
end

-- What loads and stores do. finish(state, got) is called for each outcome.
local actions = {}

function actions.load(s, t, x, step, finish)
    local order = step.order or "relaxed"
    each_seen(s, t, x, order, function(to, i)
        finish(to, load(to, t, x, order, i))
    end)
end

function actions.store(s, t, x, step, finish)
    local order, value = step.order or "relaxed", step.value
    each_seen(s, t, x, order, function(to, i)
        if not tied(to, x, i) then
            insert(to, t, x, i + 1, order, type(value) == "function"
                and value(to.vars[t]) or value)
            finish(to)
        end
    end)
end

function actions.rmw(s, t, x, step, finish)
    local order = step.order or "relaxed"
    each_seen(s, t, x, order, function(to, i)
        local from = to.memory[x][i]
        local new = step.value(from.value, to.vars[t])
        if not new then
            finish(to, load(to, t, x, "relaxed", i))
        elseif not tied(to, x, i) then
            load(to, t, x, order, i)
            insert(to, t, x, i + 1, order, new, from)
            finish(to, from.value)
        end
    end)
end

function actions.use(s, t, x, step, finish, name)
    local to, last = copy_state(s), #s.memory[x]
    to.zero = s.zero
    if to.views[t][x] ~= last then
        error({ fault = step[1] .. ": two threads use " .. name })
    end
    local old = to.memory[x][last].value
    local new = step.value(old, to.vars[t])
    if new then
        insert(to, t, x, last + 1, "relaxed", new)
    end
    finish(to, old)
end

-- Calls done(state) for each state that the step of thread t may lead to.
local function take(model, s, t, done)
    local program = model.threads[t]
    local step = program[s.at[t]]

    local function finish(to, got)
        local l = to.vars[t]
        local name = step.go and step.go(l, got)
        to.at[t] = name and assert(program.index[name], name) or to.at[t] + 1
        done(to)
    end

    local skipped = step.unless and step.unless(s.vars[t])
    for kind, act in pairs(actions) do
        local x = not skipped and step[kind]
        if x then
            x = model.index[type(x) == "function" and x(s.vars[t]) or x]
            return act(s, t, x, step, finish, model.memory[x][1])
        end
    end
    local to = copy_state(s)
    to.zero = s.zero
    if skipped then
        to.at[t] = to.at[t] + 1
        return done(to)
    elseif step.fence or step.heavy then
        fence(to, t)
    end
    if step.heavy then
        for i = 1, #model.threads do
            fence(to, i)
        end
        fence(to, t)
    end
    finish(to)
end

local function prepare(model)
    local s = { memory = {}, views = {}, vars = {}, at = {}, sc = {},
        zero = {} }
    model.index = {}
    for i, pair in ipairs(model.memory) do
        model.index[pair[1]] = i
        s.sc[i], s.zero[i] = 1, 1
    end
    for i, pair in ipairs(model.memory) do
        s.memory[i] = { { value = pair[2], view = copy(s.zero) } }
    end
    for t, program in ipairs(model.threads) do
        program.index = {}
        for i, step in ipairs(program) do
            program.index[step[1]] = program.index[step[1]] or i
        end
        program.index["end"] = #program + 1
        s.views[t], s.vars[t], s.at[t] = copy(s.zero), {}, 1
        for _, name in ipairs(model.vars) do
            s.vars[t][name] = 0
        end
    end
    return s
end

-- Values that no thread can load any more are forgotten, so that states which
-- differ in nothing else are one.
local function forget(s)
    for x, list in ipairs(s.memory) do
        local low = math.huge
        for _, view in ipairs(s.views) do
            low = math.min(low, view[x])
        end
        if low > 1 then
            local kept = {}
            for i = low, #list do
                kept[#kept + 1] = list[i]
            end
            s.memory[x] = kept
            renumber(s, x, function(n) return math.max(1, n - low + 1) end)
        end
    end
end

local function values(model, s)
    local now = {}
    for x, pair in ipairs(model.memory) do
        now[pair[1]] = s.memory[x][#s.memory[x]].value
    end
    return now
end

-- The steps that led to a state, the first one first.
local function trace(model, entry)
    local out = {}
    while entry.from do
        local step = model.threads[entry.thread][entry.from.state.at[
            entry.thread]]
        table.insert(out, 1, model.threads[entry.thread].name .. " " .. step[1])
        entry = entry.from
    end
    return table.concat(out, "\n")
end

-- Called by a step's functions when they find something wrong.
function explore.fault(what)
    error({ fault = what })
end

-- A program of steps and lists of steps.
function explore.program(name, ...)
    local program = { name = name }
    local function add(part)
        if type(part[1]) == "string" then
            program[#program + 1] = part
            return
        end
        for _, step in ipairs(part) do
            add(step)
        end
    end
    add({ ... })
    return program
end

-- The thread whose next step touches nothing that others do. No order of that
-- step and theirs makes a difference, so one is enough.
local function alone(model, s)
    for t, program in ipairs(model.threads) do
        local step = program[s.at[t]]
        if step and (step.unless and step.unless(s.vars[t])
            or not (step.load or step.store or step.rmw or step.use
            or step.fence or step.heavy)) then
            return t
        end
    end
end

-- Runs the model in depth. Returns the number of states, and, when something is
-- wrong, what it is with the steps that lead there. model.settled(values, vars)
-- says what is wrong in a state in which all threads have ended, or returns
-- nil.
function explore.run(model)
    local first = { state = prepare(model) }
    local seen, stack, count = {}, { first }, 0
    while #stack > 0 do
        local entry = table.remove(stack)
        local s, ended = entry.state, true
        local only = alone(model, s)
        for t, program in ipairs(model.threads) do
            if s.at[t] <= #program then
                ended = false
            end
            if s.at[t] <= #program and (not only or only == t) then
                local ok, wrong = pcall(take, model, s, t, function(to)
                    to.zero = s.zero
                    forget(to)
                    local key = encode(to, model.vars)
                    if not seen[key] then
                        seen[key], count = true, count + 1
                        stack[#stack + 1] = { state = to, from = entry,
                            thread = t }
                    end
                end)
                if not ok then
                    if type(wrong) ~= "table" then
                        error(wrong, 0)
                    end
                    return count, wrong.fault .. "\n" .. trace(model,
                        { from = entry, thread = t })
                end
            end
        end
        local wrong = ended and model.settled(values(model, s), s.vars)
        if wrong then
            return count, wrong .. "\n" .. trace(model, entry)
        end
    end
    return count
end

return explore
