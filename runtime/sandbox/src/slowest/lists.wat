;; Hands the host as many lists of one byte as it is asked for.
(component
  (core module $guest
    (memory (export "memory") 17)
    (func (export "lists") (param $count i32) (result i32) (local $at i32)
      (loop $next
        (i32.store (i32.add (i32.const 64) (i32.mul (local.get $at) (i32.const 8))) (i32.const 8))
        (i32.store (i32.add (i32.const 68) (i32.mul (local.get $at) (i32.const 8))) (i32.const 1))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $count))))
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (local.get $count))
      (i32.const 0)))
  (core instance $instance (instantiate $guest))
  (func (export "lists") (param "count" u32) (result (list (list u8)))
    (canon lift (core func $instance "lists") (memory (core memory $instance "memory")))))
