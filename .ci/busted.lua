-- How busted reports here: a line for each test as it ends, and the sum last.
return function()
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()
    local write = io.write

    local function say(word, name, message)
        write(("%-7s  %s\n"):format(word, name))
        if message then
            if type(message) ~= "string" then
                message = require("pl.pretty").write(message)
            end
            write("         ", (message:gsub("\n", "\n         ")), "\n")
        end
        io.flush()
    end

    local words = {
        success = "ok", pending = "skipped", failure = "FAILED",
        error = "FAILED",
    }
    local lists = {
        pending = handler.pendings, failure = handler.failures,
        error = handler.errors,
    }

    function handler.testEnd(element, _, status)
        local list = lists[status]
        local t = list and list[#list]
        say(words[status], handler.getFullName(element), t and t.message)
        return nil, true
    end

    -- What goes wrong outside of a test: a file that does not load, a setup.
    function handler.error(element)
        if element.descriptor ~= "it" then
            local t = handler.errors[#handler.errors]
            say("FAILED", t.name, t.message)
        end
        return nil, true
    end

    function handler.suiteEnd()
        write(("%d passed, %d failed, %d skipped\n"):format(
            handler.successesCount,
            handler.failuresCount + handler.errorsCount,
            handler.pendingsCount))
        io.flush()
        return nil, true
    end

    busted.subscribe({ "suite", "end" }, handler.suiteEnd)
    busted.subscribe({ "test", "end" }, handler.testEnd,
        { predicate = handler.cancelOnPending })
    busted.subscribe({ "error" }, handler.error)
    busted.subscribe({ "failure" }, handler.error)
    return handler
end
