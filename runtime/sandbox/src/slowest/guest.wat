;; What is slowest for its fuel. Each function does `turns` turns of one thing.
(module
  (memory (export "memory") 1)
  (global $mask (mut i32) (i32.const 0))

  ;; Takes so many pages (a power of two), and writes into each line of 64 bytes the address of
  ;; another one: a walk that comes to all of them, in an order that no processor foresees.
  (func (export "lay") (param $pages i32) (local $at i32) (local $turn i32)
    (drop (memory.grow (i32.sub (local.get $pages) (memory.size))))
    (global.set $mask (i32.sub (i32.mul (local.get $pages) (i32.const 65536)) (i32.const 64)))
    (loop $next
      (i32.store (local.get $at)
        (i32.and (global.get $mask)
          (i32.shl (i32.add (i32.mul (i32.shr_u (local.get $at) (i32.const 6)) (i32.const 5))
                            (i32.const 1000003)) (i32.const 6))))
      (local.set $at (i32.load (local.get $at)))
      (br_if $next (i32.le_u (i32.shl (local.tee $turn (i32.add (local.get $turn) (i32.const 1)))
                                      (i32.const 6)) (global.get $mask)))))

  ;; Each load waits for the one before.
  (func (export "chase") (param $turns i32) (local $at i32)
    (loop $next
      (local.set $at LOADS)
      (br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (i32.store (i32.const 0) (local.get $at)))

  ;; Numbers so small that the processor stops at each.
  (func (export "subnormal") (param $turns i32) (local $x f64)
    (loop $next
      (local.set $x (f64.const 0x1p-1060))
      MULTIPLIED
      (br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (f64.store (i32.const 8) (local.get $x)))

  ;; Leaps that no processor foresees.
  (func (export "leap") (param $turns i32) (local $x i64)
    (loop $next
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
      (local.set $x (i64.add (local.get $x) (i64.const 1442695040888963407)))
      (block $out (block $a (block $b (block $c
        (br_table $a $b $c $out (i32.and (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 33))) (i32.const 3))))
        (local.set $x (i64.rotl (local.get $x) (i64.const 5))))
        (local.set $x (i64.mul (local.get $x) (i64.const 3)))))
      (br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (i64.store (i32.const 8) (local.get $x)))

  ;; Asks for memory that there is not.
  (func (export "ask") (param $turns i32)
    (loop $next
      (drop (memory.grow (i32.const 65000)))
      (br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))

  ;; Reads a byte of each page of 4,096 bytes, and then writes it: the kernel is asked twice.
  (func (export "touch") (param $pages i32) (local $at i32)
    (drop (memory.grow (i32.sub (local.get $pages) (memory.size))))
    (loop $next
      (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096)))
                             (i32.mul (local.get $pages) (i32.const 65536)))))))
