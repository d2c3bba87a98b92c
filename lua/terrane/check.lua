-- check: a table from a recipe against the fields of the schema. What passes is a plain table that the recipe cannot
-- reach; what does not is an error with line, constructor, field, what was found and what is allowed.
local host = host
local format, concat = string.format, table.concat

local check = {}

local checked = setmetatable({}, { __mode = "k" }) -- handle in the recipe's hands -> its checked data
local max_text = 4096

-- ---- words ----

local function show_text(text)
    if #text > 40 then
        text = text:sub(1, 37) .. "..."
    end
    return "'" .. text:gsub("%c", "?") .. "'"
end

function check.show(value)
    local kind = math.type(value) or type(value)
    if kind == "string" then
        return show_text(value)
    elseif kind == "float" then
        return value ~= value and "not a number" or format("%.14g", value)
    elseif kind == "table" then
        local data = checked[value]
        return data and (data.what or "a terrane." .. data.constructor) or "a table"
    elseif kind == "nil" or kind == "boolean" or kind == "integer" then
        return tostring(value)
    end
    return "a " .. kind
end

local function either(words)
    local last = words[#words]
    if #words == 1 then
        return last
    end
    return concat(words, ", ", 1, #words - 1) .. " or " .. last
end

local function range(field)
    local text = ""
    if field.min and field.max then
        text = format(" from %.14g to %.14g", field.min, field.max)
    elseif field.min then
        text = format(" of at least %.14g", field.min)
    elseif field.above then
        text = format(" above %.14g", field.above) .. (field.max and format(" and at most %.14g", field.max) or "")
    elseif field.max then
        text = format(" of at most %.14g", field.max)
    end
    return field.multiple and format("%s, a multiple of %d", text, field.multiple) or text
end

local function choice_names(field)
    local names = {}
    for i, value in ipairs(field.values) do
        names[i] = value[1]
    end
    return names
end

local wants = {
    string = function(field) return field.what or "text" end,
    integer = function(field) return "an integer" .. range(field) end,
    number = function(field) return "a number" .. range(field) end,
    boolean = function() return "true or false" end,
    paths = function() return "a path or a list of paths" end,
    record = function(field) return "a table { " .. field.record[1].name .. " = ..., ... }" end,
    fusion = function() return "terrane.concat {...} or terrane.average {...}" end,
    export = function() return "terrane.geotiff {...}, terrane.npy {...} or terrane.preview {...}" end,
    head = function() return "a head (terrane.linear, mlp, attention_pool, fcn or upernet)" end,
    graph = function() return "terrane.graph(function(g, x) ... end)" end,
    optimizer = function() return "terrane.adamw {...} or terrane.sgd {...}" end,
    schedule = function() return "terrane.constant {...}, terrane.cosine {...} or terrane.step {...}" end,
    loss = function() return "a loss (terrane.cross_entropy, dice, ce_dice, jaccard, focal or binary)" end,
    probe = function() return "terrane.knn {...}, terrane.linear_probe {...} or terrane.logistic {...}" end,
    choice = function(field)
        local names = choice_names(field)
        for i, name in ipairs(names) do
            names[i] = "'" .. name .. "'"
        end
        return either(names)
    end,
}

local function types_of(field)
    return type(field.type) == "table" and field.type or { field.type }
end

function check.want(field)
    local words = {}
    for i, kind in ipairs(types_of(field)) do
        words[i] = wants[kind] and wants[kind](field) or "terrane." .. kind .. " {...}"
    end
    return either(words)
end

local function want_list(field)
    if field.count then
        return format("a list of %d, each %s", field.count, check.want(field))
    end
    return (field.single and "one or a list of 1 to " or "a list of 1 to ") .. field.max_items .. ", each "
        .. check.want(field)
end

-- ---- errors ----

-- where: { line = of the call, constructor = its name }. field and item choose the line nearer to the mistake.
function check.fail(where, field, item, message)
    local line = host.locate(where.line, where.constructor, field, item)
    error(format("recipe:%d: %s: %s", line, where.label or where.constructor, message), 0)
end

local function did_you_mean(word, names)
    local near = host.nearest(word, names)
    return near and format("; did you mean '%s'?", near) or ""
end
check.did_you_mean = did_you_mean

local function label(field, item)
    if field.positional then
        return item and format("value %d (%s)", item, field.name) or format("the first value (%s)", field.name)
    end
    return item and format("field '%s[%d]'", field.name, item) or format("field '%s'", field.name)
end

local function fail_value(where, field, item, value, wanted)
    local near = ""
    if field.values and type(value) == "string" then
        near = did_you_mean(value, choice_names(field))
    end
    check.fail(where, not field.positional and field.name or nil, item,
               format("%s is %s; wanted %s%s", label(field, item), check.show(value), wanted or check.want(field),
                      near))
end

-- ---- values ----

local function in_range(field, value)
    return value == value and value ~= math.huge and value ~= -math.huge and (not field.min or value >= field.min)
        and (not field.max or value <= field.max) and (not field.above or value > field.above)
        and (not field.multiple or value % field.multiple == 0)
end

-- Each gives the checked value, or nil when it is not of that type.
local readers = {
    string = function(_, value)
        return type(value) == "string" and #value > 0 and #value <= max_text and not value:find("\0", 1, true) and value
            or nil
    end,
    integer = function(field, value)
        local whole = math.type(value) and math.tointeger(value)
        return whole and in_range(field, whole) and whole or nil
    end,
    number = function(field, value) return math.type(value) and in_range(field, value) and value + 0.0 or nil end,
    boolean = function(_, value)
        if type(value) == "boolean" then
            return value
        end
    end,
    choice = function(field, value)
        for _, allowed in ipairs(field.values) do
            if allowed[1] == value then
                return value
            end
        end
    end,
}

-- A path or a list of paths, as a list.
function readers.paths(_, value)
    if type(value) == "string" then
        value = { value }
    end
    if type(value) ~= "table" or checked[value] or #value == 0 or #value > 4096 then
        return nil
    end
    local count, list = 0, {}
    for key in next, value do
        count = count + 1
        if math.type(key) ~= "integer" or count > #value then
            return nil
        end
    end
    for i = 1, #value do
        list[i] = readers.string(nil, value[i])
        if not list[i] then
            return nil
        end
    end
    return list
end

local function read_handle(kind, value)
    local data = type(value) == "table" and checked[value]
    return data and data.kind == kind and data or nil
end

local function read_value(where, field, item, value)
    if field.record and type(value) == "table" and not checked[value] then
        local place = item and format("%s[%d]", field.name, item) or field.name
        local inner = { line = where.line, constructor = where.constructor, field = field.name, item = item,
                        label = where.constructor .. ": " .. place }
        return check.fields(inner, { fields = field.record }, value)
    end
    for _, kind in ipairs(types_of(field)) do
        local reader = readers[kind]
        local result
        if reader then
            result = reader(field, value)
        else
            result = read_handle(kind, value)
        end
        if result ~= nil then
            return result
        end
    end
    fail_value(where, field, item, value)
end
check.value = read_value

-- A list has the keys 1..n and no others.
local function read_list(where, field, value)
    if field.single and (type(value) ~= "table" or checked[value]) then
        value = { value }
    end
    if type(value) ~= "table" or checked[value] then
        fail_value(where, field, nil, value, want_list(field))
    end
    local count = 0
    for key in next, value do
        count = count + 1
        if math.type(key) ~= "integer" then
            check.fail(where, field.name, nil, format("%s holds the key %s; wanted %s", label(field), check.show(key),
                                                      want_list(field)))
        end
        if count > field.max_items then
            check.fail(where, field.name, nil, format("%s holds more than %d values", label(field), field.max_items))
        end
    end
    if count == 0 then
        check.fail(where, field.name, nil, format("%s is empty; wanted %s", label(field), want_list(field)))
    end
    if field.count and count ~= field.count then
        check.fail(where, field.name, nil, format("%s has %d values; wanted %s", label(field), count, want_list(field)))
    end
    local result = {}
    for i = 1, count do
        if value[i] == nil then
            check.fail(where, field.name, nil, format("%s has a gap: value %d is nil", label(field), i))
        end
        result[i] = read_value(where, field, i, value[i])
    end
    return result
end

-- ---- tables ----

local function field_names(fields)
    local names = {}
    for _, field in ipairs(fields) do
        if not field.positional then
            names[#names + 1] = field.name
        end
    end
    return names
end

local function fail_unknown(where, fields, key)
    if type(key) ~= "string" then
        if math.type(key) == "integer" then
            check.fail(where, where.field, where.item, format("value %d has no meaning here (fields: %s)", key,
                                                              concat(field_names(fields), ", ")))
        end
        check.fail(where, where.field, where.item, format("the key %s has no meaning here", check.show(key)))
    end
    local names = field_names(fields)
    check.fail(where, where.field or key, where.item,
               format("field %s is unknown%s (fields: %s)", check.show(key), did_you_mean(key, names),
                      concat(names, ", ")))
end

-- Model settings: what an open constructor takes beside its fields. They stay numbers and texts.
local function read_setting(where, key, value)
    local kind = type(value)
    local good = kind == "boolean" or kind == "string" and readers.string(nil, value)
        or kind == "number" and in_range({}, value)
    if #key > 64 or not key:find("^[%a_][%w_]*$") then
        check.fail(where, nil, nil, format("the setting name %s is not a name (letters, digits, _)", check.show(key)))
    end
    if not good then
        check.fail(where, key, nil, format("the setting '%s' is %s; wanted text, a finite number, true or false", key,
                                           check.show(value)))
    end
    if kind == "number" then
        value = math.tointeger(value) or value
    end
    return { key = key, value = host.number_text(value) }
end

local function sort_keys(keys)
    table.sort(keys)
    return keys
end

local function positional_of(fields)
    for _, field in ipairs(fields) do
        if field.positional then
            return field
        end
    end
end

local function read_positional(where, field, source, result)
    if field.list then
        local first = source[1]
        if type(first) == "table" and not checked[first] and source[2] == nil then
            result[field.name] = read_list(where, field, first)
            return 1
        end
        local n = 0
        local list = {}
        while source[n + 1] ~= nil do
            n = n + 1
            if n > field.max_items then
                check.fail(where, nil, nil, format("more than %d values", field.max_items))
            end
            list[n] = read_value(where, field, n, source[n])
        end
        result[field.name] = n > 0 and list or nil
        return n
    end
    if source[1] ~= nil then
        result[field.name] = read_value(where, field, nil, source[1])
        return 1
    end
    return 0
end

-- Every key of source, known or not.
local function check_keys(where, schema, source, positional_count)
    local known, settings = {}, {}
    for _, field in ipairs(schema.fields) do
        known[field.name] = not field.positional
    end
    for key in next, source do
        local counted = math.type(key) == "integer" and key >= 1 and key <= positional_count
        if not known[key] and not counted then
            if not schema.open or type(key) ~= "string" or known[key] == false then
                fail_unknown(where, schema.fields, key)
            end
            settings[#settings + 1] = key
            if #settings > 256 then
                check.fail(where, nil, nil, "more than 256 settings")
            end
        end
    end
    return sort_keys(settings)
end

local function read_field(where, field, value)
    if value == nil then
        return field.default
    end
    if where.field then -- inside a record: its line is the place of every mistake
        where = { line = host.locate(where.line, where.constructor, where.field, where.item),
                  constructor = where.constructor, label = where.label }
    end
    if field.list then
        return read_list(where, field, value)
    end
    return read_value(where, field, nil, value)
end

-- source, a plain table of the recipe -> checked copy. where.field, where.item: place of a record in its constructor.
function check.fields(where, schema, source)
    local result = {}
    local positional = positional_of(schema.fields)
    local count = positional and read_positional(where, positional, source, result) or 0
    local settings = check_keys(where, schema, source, count)
    for _, field in ipairs(schema.fields) do
        if not field.positional then
            result[field.name] = read_field(where, field, source[field.name])
        end
        if field.required and result[field.name] == nil then
            local place = where.field or (not field.positional and field.name or nil)
            check.fail(where, place, where.item, format("%s is missing; wanted %s", label(field),
                                                        field.list and want_list(field) or check.want(field)))
        end
    end
    for i, key in ipairs(settings) do
        settings[i] = read_setting(where, key, source[key])
    end
    result.settings = schema.open and settings or nil
    return result
end

-- ---- handles ----

-- What a constructor returns: it can be passed on, and neither read nor changed.
function check.handle(data)
    local name = "terrane." .. data.constructor
    local handle = setmetatable({}, {
        __metatable = false,
        __name = name,
        __index = function(_, key)
            error(format("recipe:%d: %s: its fields cannot be read back (%s)", host.line(), name, check.show(key)), 0)
        end,
        __newindex = function(_, key)
            error(format("recipe:%d: %s is finished; give %s inside its braces", host.line(), name,
                         check.show(key)), 0)
        end,
    })
    checked[handle] = data
    return handle
end

-- Registers a handle made elsewhere (params), so that it is recognised and named in errors.
function check.register(handle, data)
    checked[handle] = data
end

function check.data(value)
    return type(value) == "table" and checked[value] or nil
end

return check
