-- Rows, dead letters and their accounts: every change of them is one call of this script, so that
-- whoever else uses the same Redis sees all of it or nothing. redis.rs describes the keys and rows.
--
-- ARGV: what to do, the time in milliseconds (8 bytes), then as `todo` at the end reads it. A user
-- is 8 bytes (tenant, id), a seq or an id of a dead letter 8 bytes; all numbers are big-endian.

local OK, FULL, UNAVAILABLE = '0', '1', '2'
local died_ms = ARGV[2]

local function find(key, start)
  local member = redis.call('ZRANGEBYLEX', key, '[' .. start, '+', 'LIMIT', '0', '1')[1]
  if member and member:sub(1, 8) == start then return member end
end

-- A user's keys, and his account as far as this call has looked at it or changed it: a batch has
-- many users and several writes of some, and each command costs more than all that is done here.
local users, known_users = {}, {}
local function user_of(bytes)
  local user = known_users[bytes]
  if not user then
    local tenant, id = struct.unpack('>I4I4', bytes)
    local name = string.format('%d_%d', tenant, id)
    local list = string.format('offline_%d', id)
    if tenant ~= 0 then list = string.format('t%d_', tenant) .. list end
    user = {
      bytes = bytes, name = name, rows = 'ringpost_rows_' .. name, list = list,
      account = 'ringpost_bytes_' .. name, change = 0,
    }
    known_users[bytes] = user
    users[#users + 1] = user
  end
  return user
end

-- What the rows of all users so far hold: only the end of a call changes that. Some at a time, for
-- Lua's stack has an end.
local users_read = 0
local function read_accounts()
  while users_read < #users do
    local keys = {}
    for at = users_read + 1, math.min(users_read + 1000, #users) do
      keys[#keys + 1] = users[at].account
    end
    for at, held in ipairs(redis.call('MGET', unpack(keys))) do
      users[users_read + at].held = tonumber(held or 0)
    end
    users_read = users_read + #keys
  end
end

local function call_in_pieces(command, args)
  for first = 1, #args, 1000 do
    redis.call(command, unpack(args, first, math.min(first + 999, #args)))
  end
end

local function write_accounts()
  read_accounts()
  local kept, gone = {}, {}
  for _, user in ipairs(users) do
    local held = user.held + user.change
    if user.change ~= 0 and held <= 0 then
      gone[#gone + 1] = user.account
    elseif user.change ~= 0 then
      kept[#kept + 1], kept[#kept + 2] = user.account, string.format('%.0f', held)
    end
  end
  call_in_pieces('MSET', kept)
  call_in_pieces('DEL', gone)
end

-- How many rows he has, and what they hold.
local function account_of(user)
  user.count = user.count or redis.call('ZCARD', user.rows)
  return user.count, user.held + user.change
end

local function account(user, rows, bytes)
  user.change = user.change + bytes
  if user.count then user.count = user.count + rows end
end

local function body_key(row) return 'ringpost_body_' .. row:sub(11, 26) end
local function is_shared(row) return row:byte(10) >= 2 end
local function bytes_of(row) return (struct.unpack('>I4', row, 35)) end

local function text_of(row)
  if is_shared(row) then return redis.call('HGET', body_key(row), 'text') or '' end
  local head, body = struct.unpack('>I2I4', row, 39)
  return row:sub(45 + head + body)
end

local function is_later(one, other)
  local one_high, one_low = struct.unpack('>I4I4', one)
  local high, low = struct.unpack('>I4I4', other)
  return one_high > high or (one_high == high and one_low > low)
end

local stored =
  redis.call('HMGET', 'ringpost_totals', 'rows', 'bytes', 'dead_id', 'seq_max', 'aged')
local rows_total, bytes_total = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
local dead_id, seq_max = tonumber(stored[3] or 0), stored[4] or string.rep('\0', 8)
-- Somebody wants to know how old messages are.
local aged = stored[5]

-- Only the first write of a script is refused for want of memory. Without memory nothing is added,
-- but what goes must be able to go. That each call writes something is also what WAIT waits for.
local full = redis.pcall('HINCRBY', 'ringpost_totals', 'calls', 1)
local out_of_memory = type(full) == 'table' and full.err ~= nil
if out_of_memory then
  redis.call('HDEL', 'ringpost_totals', 'calls')
  redis.call('HINCRBY', 'ringpost_totals', 'calls', 1)
end

local function note_age(user, row)
  local high, low = struct.unpack('>I4I4', row, 27)
  local time_ms = string.format('%.0f', high * 4294967296 + low)
  redis.call('ZADD', 'ringpost_age', time_ms, user.bytes .. row:sub(1, 8))
end

-- Into the user's rows and account.
local function add(user, row)
  redis.call('ZADD', user.rows, '0', row)
  if aged then note_age(user, row) end
  account(user, 1, bytes_of(row))
end

-- Into his list, too, which belongs to others as well: its state is never an error.
local function put(user, row, push)
  add(user, row)
  redis.pcall(push, user.list, text_of(row))
end

-- The first element of a list, if it is this one.
local function pop(list, text)
  local first = redis.pcall('LPOP', list)
  if type(first) == 'string' and first ~= text then redis.call('LPUSH', list, first) end
  return first == text
end

-- Out of the user's rows and account, not yet out of the store's. It is nearly always the oldest,
-- so that this is tried first: commands that name neither row nor text make a shorter log.
local function take(user, seq)
  if aged then redis.call('ZREM', 'ringpost_age', user.bytes .. seq) end
  local oldest = redis.call('ZPOPMIN', user.rows)[1]
  if not oldest then return end
  local row = oldest
  if oldest:sub(1, 8) ~= seq then
    redis.call('ZADD', user.rows, '0', oldest)
    row = find(user.rows, seq)
    if not row then return end
    redis.call('ZREM', user.rows, row)
  end
  local text = text_of(row)
  if row ~= oldest or not pop(user.list, text) then
    redis.pcall('LREM', user.list, '1', text)
  end
  account(user, -1, -bytes_of(row))
  return row
end

local function release(row)
  rows_total = rows_total - 1
  if is_shared(row) then
    local key = body_key(row)
    if redis.call('HINCRBY', key, 'refs', -1) > 0 then return end
    redis.call('DEL', key)
  end
  bytes_total = bytes_total - bytes_of(row)
end

local function append(caps, user, row, shared)
  local seq = row:sub(1, 8)
  -- Nobody has a row beyond the largest.
  local newest = is_later(seq, seq_max)
  local there = not newest and find(user.rows, seq)
  if there then return there:sub(11, 26) == row:sub(11, 26) and OK or FULL end
  if out_of_memory then return UNAVAILABLE end
  local bytes, key = bytes_of(row), shared and body_key(row)
  local known = shared and redis.call('EXISTS', key) == 1
  local new_bytes = known and 0 or bytes
  local count, held = account_of(user)
  if count >= caps.user_rows or held + bytes > caps.user_bytes
    or rows_total >= caps.rows or bytes_total + new_bytes > caps.bytes then
    return FULL
  end
  if shared then
    if not known then
      redis.call('HSET', key, 'head', shared.head, 'body', shared.body, 'text', shared.text)
    end
    redis.call('HINCRBY', key, 'refs', 1)
  end
  put(user, row, 'RPUSH')
  rows_total, bytes_total = rows_total + 1, bytes_total + new_bytes
  if newest then seq_max = seq end
  return OK
end

local function charge(user, seq, charges)
  local row = find(user.rows, seq)
  if not row then return end
  local marks = string.char(math.min(row:byte(9) + charges, 255), is_shared(row) and 3 or 1)
  redis.call('ZREM', user.rows, row)
  redis.call('ZADD', user.rows, '0', row:sub(1, 8) .. marks .. row:sub(11))
end

local function bury(user, seq, reason)
  local row = take(user, seq)
  if not row then return end
  dead_id = dead_id + 1
  local id = struct.pack('>I4I4', math.floor(dead_id / 4294967296), dead_id % 4294967296)
  redis.call('ZADD', 'ringpost_dead', '0', id .. reason .. died_ms .. user.bytes .. row)
end

-- The dead letters of ids, or the first id of which there is none.
local function letters(first)
  local found, seen = {}, {}
  for at = first, #ARGV do
    local letter = not seen[ARGV[at]] and find('ringpost_dead', ARGV[at])
    if not letter then return nil, ARGV[at] end
    found[#found + 1], seen[ARGV[at]] = letter, true
  end
  return found
end

local todo = {}

function todo.write()
  local caps = {
    user_rows = tonumber(ARGV[3]), user_bytes = tonumber(ARGV[4]),
    rows = tonumber(ARGV[5]), bytes = tonumber(ARGV[6]),
  }
  local results, at = {}, 7
  while at <= #ARGV do
    user_of(ARGV[at + 1])
    at = at + (ARGV[at + 3] == 'shared' and 7 or 4)
  end
  read_accounts()
  at = 7
  while at <= #ARGV do
    local kind, user, what, more = ARGV[at], user_of(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
    local result = OK
    at = at + 4
    if kind == 'append' then
      local shared
      if more == 'shared' then
        shared = { head = ARGV[at], body = ARGV[at + 1], text = ARGV[at + 2] }
        at = at + 3
      end
      result = append(caps, user, what, shared)
    elseif kind == 'delete' then
      local row = take(user, what)
      if row then release(row) end
    elseif kind == 'failed' then
      charge(user, what, tonumber(more))
    elseif kind == 'bury' then
      bury(user, what, more)
    elseif kind ~= 'bind' then
      result = FULL
    end
    results[#results + 1] = result
  end
  return table.concat(results)
end

-- All rows of a user.
function todo.clear()
  local user = user_of(ARGV[3])
  for _, row in ipairs(redis.call('ZRANGE', user.rows, 0, -1)) do
    release(take(user, row:sub(1, 8)))
  end
  return OK
end

-- Messages from before a time, at most so many.
function todo.expire()
  local before, limit = '(' .. ARGV[3], ARGV[4]
  local old = redis.call('ZRANGEBYSCORE', 'ringpost_age', '-inf', before, 'LIMIT', 0, limit)
  for _, key in ipairs(old) do bury(user_of(key:sub(1, 8)), key:sub(9), ARGV[5]) end
  return tostring(#old)
end

-- Rows from before anybody wanted to know their age.
function todo.index()
  local user = user_of(ARGV[3])
  for _, row in ipairs(redis.call('ZRANGE', user.rows, 0, -1)) do note_age(user, row) end
  return OK
end

function todo.requeue()
  local found, missing = letters(3)
  if not found then return missing end
  for _, letter in ipairs(found) do
    local user, row = user_of(letter:sub(18, 25)), letter:sub(26)
    if find(user.rows, row:sub(1, 8)) then return letter:sub(1, 8) end
  end
  for _, letter in ipairs(found) do
    local user, row = user_of(letter:sub(18, 25)), letter:sub(26)
    local marks = string.char(0, is_shared(row) and 2 or 0)
    redis.call('ZREM', 'ringpost_dead', letter)
    put(user, row:sub(1, 8) .. marks .. row:sub(11), 'LPUSH')
    redis.call('SADD', 'ringpost_requeued', user.bytes)
  end
  return ''
end

function todo.drop()
  local found, missing = letters(3)
  if not found then return missing end
  for _, letter in ipairs(found) do
    redis.call('ZREM', 'ringpost_dead', letter)
    release(letter:sub(26))
  end
  return ''
end

-- The elements of the user's list that no row of his has, from the oldest on: at most so many, and
-- so many bytes of what is longer than so many of one. First the last seq given to such a one; then
-- for each its place, its digest, what became of it, and its packet.
function todo.foreign()
  local limit, bytes_max, element_max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local found = { redis.call('HGET', 'ringpost_imports', 'seq') or '0' }
  if out_of_memory then return found end
  local user, ours = user_of(ARGV[3]), {}
  for _, row in ipairs(redis.call('ZRANGE', user.rows, 0, -1)) do
    local text = text_of(row)
    ours[text] = (ours[text] or 0) + 1
  end
  local at, count, bytes = 0, 0, 0
  while true do
    local elements = redis.call('LRANGE', user.list, at, at + 63)
    if #elements == 0 then return found end
    for _, element in ipairs(elements) do
      local known = ours[element] or 0
      ours[element] = known - 1
      if known <= 0 then
        -- A packet, or the name of a key that holds it.
        local state, packet = 'packet', element
        if element:sub(1, 1) ~= '[' then packet = redis.pcall('GET', element) end
        if not packet then
          state, packet = 'expired', ''
        elseif type(packet) ~= 'string' or #packet > element_max then
          state, packet = 'unreadable', ''
        end
        count, bytes = count + 1, bytes + #packet
        for _, part in ipairs({ tostring(at), redis.sha1hex(element), state, packet }) do
          found[#found + 1] = part
        end
        if count == limit or bytes > bytes_max then return found end
      end
      at = at + 1
    end
  end
end

-- Makes rows of such elements, which keep their places in the list, and puts aside those of which
-- none can be made. They were here before, so no cap refuses them. Ends where the list is not any
-- more what it was. Returns how many are done.
function todo.import()
  local user, last = user_of(ARGV[3]), ARGV[4]
  local list = user.list
  local stored = redis.call('HGET', 'ringpost_imports', 'seq') or '0'
  -- Somebody else, or this very call, was here first.
  if out_of_memory or stored ~= last then return '0' end
  local seq, done, gone = tonumber(last), 0, '\0ringpost'
  for at = 5, #ARGV, 4 do
    local index, digest, fate, row = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local element = redis.call('LINDEX', list, index)
    if not element or redis.sha1hex(element) ~= digest then break end
    if row == '' then
      redis.call('RPUSH', 'ringpost_aside_' .. user.name, element)
      redis.call('LSET', list, index, gone)
    else
      local place
      repeat
        seq = seq + 1
        place = struct.pack('>I4I4', math.floor(seq / 4294967296), seq % 4294967296)
      until not find(user.rows, place)
      row = place .. row:sub(9)
      if text_of(row) ~= element then redis.call('LSET', list, index, text_of(row)) end
      add(user, row)
      rows_total, bytes_total = rows_total + 1, bytes_total + bytes_of(row)
    end
    redis.call('HINCRBY', 'ringpost_imports', fate, 1)
    done = done + 1
  end
  redis.call('LREM', list, 0, gone)
  redis.call('HSET', 'ringpost_imports', 'seq', string.format('%.0f', seq))
  return tostring(done)
end

local result = todo[ARGV[1]]()
write_accounts()
redis.call('HSET', 'ringpost_totals', 'seq_max', seq_max,
  'rows', string.format('%.0f', rows_total), 'bytes', string.format('%.0f', bytes_total),
  'dead_id', string.format('%.0f', dead_id))
return result
