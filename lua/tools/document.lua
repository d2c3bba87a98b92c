-- document: writes lua/meta/terrane.lua and the field tables of docs/recipes.md from lua/terrane/schema.lua, and the
-- operators of terrane.graph from the table in runtime/nn/program.c.
-- From the source folder: lua5.4 lua/tools/document.lua. As a chunk with the argument "generate" and the source folder
-- it only returns what the two files should hold; the test of the recipes compares.
local schema_path, operators_path = "lua/terrane/schema.lua", "runtime/nn/program.c"
local stubs_path, docs_path = "lua/meta/terrane.lua", "docs/recipes.md"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local function write(path, text)
    local file = assert(io.open(path, "wb"))
    assert(file:write(text))
    assert(file:close())
end

local function types_of(field)
    return type(field.type) == "table" and field.type or { field.type }
end

local function class_name(name)
    return "terrane." .. name:sub(1, 1):upper() .. name:sub(2)
end

-- ---- operators ----

-- The texts of a piece of C, those of a constant by its definition, neighbours joined.
local function texts_of(code, source)
    code = code:gsub("%f[%w_](%u%u+)%f[^%w_]", function(name)
        return source:match("#define " .. name .. ' ("[^\n]*")')
    end)
    local list = {}
    for piece in code:gsub('"%s*\n%s*"', ""):gmatch('"([^"]*)"') do
        list[#list + 1] = piece
    end
    return list
end

-- { name, help, values, args } of each operator, in the order of the table.
local function read_operators(source)
    local list = {}
    local table_text = source:match("static const program_op ops%[%] = (%b{});")
    for entry in assert(table_text, operators_path .. " has lost its table"):sub(2, -2):gmatch("%b{}") do
        local head, args = entry:match("^{{(.-)ARGS(%b())")
        local texts = texts_of(head, source)
        local least, most = head:match("(%d+),%s*([%w_]+),%s*$")
        assert(least, operators_path .. ": the table's form changed")
        list[#list + 1] = { name = texts[1], help = texts[2], many = most ~= least, args = texts_of(args, source) }
    end
    return list
end

-- ---- stubs ----

local plain_types = {
    paths = "string[]", string = "string", integer = "integer", number = "number", boolean = "boolean",
}

local function stub_type(field)
    local words = {}
    for _, kind in ipairs(types_of(field)) do
        if kind == "choice" then
            for _, value in ipairs(field.values) do
                words[#words + 1] = '"' .. value[1] .. '"'
            end
        elseif kind == "record" then
            words[#words + 1] = class_name(field.record_name) .. "Fields"
        else
            words[#words + 1] = plain_types[kind] or class_name(kind)
        end
    end
    local one = table.concat(words, "|")
    if not field.list then
        return one
    end
    local list = #words > 1 and "(" .. one .. ")[]" or one .. "[]"
    return field.single and one .. "|" .. list or list
end

-- What happens without the field, as text; nil for required ones.
local function default_text(field)
    if field.otherwise then
        return field.otherwise
    elseif field.default ~= nil then
        return tostring(field.default)
    end
    return not field.required and "none" or nil
end

local function stub_field(field)
    local default = default_text(field)
    local help = field.help .. (default and " (default: " .. default .. ")" or "")
    if field.positional then
        local name = field.list and "[integer]" or "[1]"
        local kind = field.list and stub_type(field):gsub("%[%]$", "") .. "|" .. stub_type(field) or stub_type(field)
        return ("---@field %s %s %s"):format(name, kind, help)
    end
    return ("---@field %s%s %s %s"):format(field.name, field.required and "" or "?", stub_type(field), help)
end

local function add_class(lines, name, fields, open)
    lines[#lines + 1] = "---@class " .. class_name(name) .. "Fields"
    for _, field in ipairs(fields) do
        lines[#lines + 1] = stub_field(field)
    end
    if open then
        lines[#lines + 1] = "---@field [string] string|number|boolean settings of the model"
    end
    lines[#lines + 1] = ""
end

local function add_records(lines, fields)
    for _, field in ipairs(fields) do
        if field.record then
            add_class(lines, field.record_name, field.record)
        end
    end
end

local function add_kinds(lines, schema)
    local seen = {}
    for _, constructor in ipairs(schema) do
        if constructor.kind ~= "params" and not constructor.builder and not seen[constructor.kind] then
            seen[constructor.kind] = true
            lines[#lines + 1] = "---@class (exact) " .. class_name(constructor.kind)
            lines[#lines + 1] = ""
        end
    end
end

local function add_params(lines, constructor)
    add_class(lines, constructor.record_name, constructor.each)
    lines[#lines + 1] = "---" .. constructor.help
    lines[#lines + 1] = "---@param declared table<string, " .. class_name(constructor.record_name)
        .. "Fields|string|number|boolean>"
    lines[#lines + 1] = "---@return table<string, any> values"
    lines[#lines + 1] = "function terrane.params(declared) end"
    lines[#lines + 1] = ""
end

local function add_constructor(lines, constructor)
    local positional = false
    for _, field in ipairs(constructor.fields) do
        positional = positional or field.positional
    end
    add_records(lines, constructor.fields)
    add_class(lines, constructor.name, constructor.fields, constructor.open)
    lines[#lines + 1] = "---" .. constructor.help
    lines[#lines + 1] = "---@param fields " .. class_name(constructor.name) .. "Fields"
        .. (positional and "|string" or "")
    lines[#lines + 1] = "---@return " .. class_name(constructor.kind)
    lines[#lines + 1] = ("function terrane.%s(fields) end"):format(constructor.name)
    lines[#lines + 1] = ""
end

local function stub_argument(text)
    local key, default, help = text:match("^([%w_]+)([^:]*): (.*)$")
    local value = default:match("^=(.*)$")
    local kind = key == "mode" and "string" or (value == "true" or value == "false") and "boolean" or "number"
    return ("---@field %s%s %s %s%s"):format(key, default == " (required)" and "" or "?", kind, help,
                                             value and " (default: " .. value .. ")" or "")
end

local function add_operators(lines, operators)
    for _, op in ipairs(operators) do
        if #op.args > 0 then
            lines[#lines + 1] = "---@class terrane.Operator_" .. op.name .. ": terrane.OperatorFields"
            for _, text in ipairs(op.args) do
                lines[#lines + 1] = stub_argument(text)
            end
            lines[#lines + 1] = ""
        end
    end
    lines[#lines + 1] = "---@class (exact) terrane.Operators"
    for _, op in ipairs(operators) do
        local fields = #op.args > 0 and "terrane.Operator_" .. op.name or "terrane.OperatorFields"
        local values = op.many and "...: terrane.Value|" .. fields or "x: terrane.Value, fields?: " .. fields
        lines[#lines + 1] = ("---@field %s fun(%s): terrane.Value %s"):format(op.name, values, op.help)
    end
    lines[#lines + 1] = ""
end

local function add_builder(lines, constructor, operators)
    for _, class in ipairs { "(exact) terrane.Value", "(exact) terrane.Graph", "terrane.OperatorFields" } do
        lines[#lines + 1] = "---@class " .. class
        if class == "terrane.OperatorFields" then
            lines[#lines + 1] = "---@field name? string of its parameters (default: number and operator)"
        end
        lines[#lines + 1] = ""
    end
    add_operators(lines, operators)
    lines[#lines + 1] = "---" .. constructor.help
    lines[#lines + 1] = "---@param build fun(g: terrane.Operators, x: terrane.Value): terrane.Value"
    lines[#lines + 1] = "---@return terrane.Graph"
    lines[#lines + 1] = ("function terrane.%s(build) end"):format(constructor.name)
    lines[#lines + 1] = ""
end

local function stubs(schema, operators)
    local lines = {
        "---@meta terrane",
        "-- Generated from lua/terrane/schema.lua by lua/tools/document.lua; do not edit.",
        "-- luacheck: no max line length",
        "",
    }
    add_kinds(lines, schema)
    lines[#lines + 1] = "local terrane = {}"
    lines[#lines + 1] = ""
    for _, constructor in ipairs(schema) do
        if constructor.each then
            add_params(lines, constructor)
        elseif constructor.builder then
            add_builder(lines, constructor, operators)
        else
            add_constructor(lines, constructor)
        end
    end
    lines[#lines + 1] = "return terrane"
    return table.concat(lines, "\n") .. "\n"
end

-- ---- tables ----

local kind_words = {
    fusion = "`terrane.concat` or `terrane.average`",
    export = "`terrane.geotiff`, `terrane.npy` or `terrane.preview`",
    paths = "a path or a list of paths", string = "text", integer = "integer", number = "number",
    boolean = "`true`, `false`", head = "a head", graph = "`terrane.graph`", loss = "a loss",
    optimizer = "`terrane.adamw` or `terrane.sgd`",
    schedule = "`terrane.constant`, `terrane.cosine` or `terrane.step`",
    probe = "`terrane.knn`, `terrane.linear_probe`, `terrane.logistic`",
}

local function number_range(field)
    if field.min and field.max then
        return (" %.14g to %.14g"):format(field.min, field.max)
    elseif field.above then
        return (" above %.14g"):format(field.above) .. (field.max and (", at most %.14g"):format(field.max) or "")
    end
    return ""
end

local function doc_type(field)
    local words = {}
    for i, kind in ipairs(types_of(field)) do
        if kind == "choice" then
            local choices = {}
            for k, value in ipairs(field.values) do
                choices[k] = ('`"%s"` %s'):format(value[1], value[2])
            end
            words[i] = table.concat(choices, "; ")
        elseif kind == "record" then
            words[i] = "`{ " .. field.record[1].name .. " = ..., ... }`"
        elseif kind == "string" then
            words[i] = field.what or "text"
        else
            words[i] = (kind_words[kind] or "`terrane." .. kind .. "`") .. number_range(field)
        end
    end
    local one = table.concat(words, ", or ") .. (field.multiple and ", multiple of " .. field.multiple or "")
    if not field.list then
        return one
    end
    return (field.single and "one or a list of: " or "list of: ") .. one
end

local function add_rows(lines, fields)
    lines[#lines + 1] = "| field | value | without it | |"
    lines[#lines + 1] = "|---|---|---|---|"
    for _, field in ipairs(fields) do
        local name = field.positional and (field.list and "first values" or "first value") or "`" .. field.name .. "`"
        local default = default_text(field)
        if not field.otherwise and field.default ~= nil then
            default = type(field.default) == "string" and '`"' .. default .. '"`' or "`" .. default .. "`"
        end
        lines[#lines + 1] = ("| %s | %s | %s | %s |"):format(name, doc_type(field), default or "required", field.help)
    end
end

local function add_operator_rows(lines, operators)
    lines[#lines + 1] = "| operator | arguments | |"
    lines[#lines + 1] = "|---|---|---|"
    for _, op in ipairs(operators) do
        local args = {}
        for i, text in ipairs(op.args) do
            args[i] = "`" .. text:gsub("^([^:]*): ", "%1`: ")
        end
        lines[#lines + 1] = ("| `%s` | %s | %s |"):format(op.name, table.concat(args, "; "), op.help)
    end
end

local function tables(schema, operators)
    local lines = {}
    for _, constructor in ipairs(schema) do
        lines[#lines + 1] = "### terrane." .. constructor.name
        lines[#lines + 1] = ""
        lines[#lines + 1] = constructor.help
        lines[#lines + 1] = ""
        if constructor.builder then
            add_operator_rows(lines, operators)
        else
            add_rows(lines, constructor.fields or constructor.each)
        end
        for _, field in ipairs(constructor.fields or {}) do
            if field.record then
                lines[#lines + 1] = ""
                lines[#lines + 1] = (field.list and "Each of `" or "Fields of `") .. field.name .. "`:"
                lines[#lines + 1] = ""
                add_rows(lines, field.record)
            end
        end
        lines[#lines + 1] = ""
    end
    return table.concat(lines, "\n")
end

local first_mark, last_mark = "<!-- fields: generated from lua/terrane/schema.lua -->\n", "<!-- end of fields -->"

local function documentation(text, schema, operators)
    local first_end = select(2, text:find(first_mark, 1, true))
    local last = text:find(last_mark, 1, true)
    assert(first_end and last and first_end < last, docs_path .. " has lost its marks")
    return text:sub(1, first_end) .. "\n" .. tables(schema, operators) .. "\n" .. text:sub(last)
end

-- ---- the command ----

local mode, folder = ...
local base = mode == "generate" and folder .. "/" or ""
local schema = assert(loadfile(base .. schema_path, "t"))()
local operators = read_operators(read(base .. operators_path))
local new_stubs = stubs(schema, operators)
local new_docs = documentation(read(base .. docs_path), schema, operators)
if mode == "generate" then
    return new_stubs, read(base .. stubs_path), new_docs, read(base .. docs_path)
end
write(stubs_path, new_stubs)
write(docs_path, new_docs)
