-- Tokens. KEYS: the token's hash, the tokens of its user by age (not for `get`).
-- ARGV: what to do, the time in milliseconds, then as each reads it.

local key, now = KEYS[1], tonumber(ARGV[2])

-- A key's own expiry follows the clock of Redis; the gateway's clock has a say, too.
local function is_there()
  if redis.call('EXISTS', key) == 0 then return false end
  local expires = redis.call('HGET', key, 'ringpost_expires_ms')
  return not expires or tonumber(expires) > now
end

if ARGV[1] == 'get' then
  if not is_there() then return false end
  return { redis.call('HGETALL', key), redis.call('TTL', key) }
elseif ARGV[1] == 'persist' then
  if not is_there() then return 0 end
  redis.call('HDEL', key, 'ringpost_expires_ms')
  redis.call('PERSIST', key)
  -- One device, one token that was used there. One that was not used still expires.
  redis.call('HSET', key, 'device', ARGV[3])
  for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if other ~= key and redis.call('TTL', other) < 0
      and redis.call('HGET', other, 'device') == ARGV[3] then
      redis.call('DEL', other)
      redis.call('ZREM', KEYS[2], other)
    end
  end
  return 1
end

-- put: the lifetime in milliseconds, how many of a user are kept, fields and values.
redis.call('DEL', key)
for at = 5, #ARGV, 2 do redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
redis.call('HSET', key, 'ringpost_expires_ms', string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('PEXPIRE', key, ARGV[3])
local index = KEYS[2]
for _, other in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  if redis.call('EXISTS', other) == 0 then redis.call('ZREM', index, other) end
end
local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
redis.call('ZADD', index, (tonumber(last) or 0) + 1, key)
local surplus = redis.call('ZCARD', index) - tonumber(ARGV[4])
for _, other in ipairs(redis.call('ZRANGE', index, 0, surplus - 1)) do
  if surplus > 0 then
    redis.call('DEL', other)
    redis.call('ZREM', index, other)
  end
end
return 1
